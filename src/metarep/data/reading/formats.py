"""File formats of pictures: which of them this machine can read, and how their bytes are opened."""

import io
from importlib import import_module
from importlib.util import find_spec

from PIL import Image, features

_AVIF = "avif" in features.modules and features.check("avif")  # Pillow has it since 11.3, and not on every machine
_HEIF = find_spec("pillow_heif") is not None
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", *(("AVIF",) if _AVIF else ()))  # Pillow's names
READ = (*FORMATS, *(("HEIC",) if _HEIF else ()))  # what an error lists
EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
    | ({".avif"} if _AVIF else set())
    | ({".heic", ".heif", ".hif"} if _HEIF else set())
)
HINTS = {  # advice on formats that this machine cannot read
    **dict.fromkeys((".heic", ".heif", ".hif"), "pip install 'metarep[heic]' reads them, or save them as JPEG"),
    ".avif": "pip install 'pillow>=11.3' reads them, or save them as JPEG",
    **dict.fromkeys((".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf"), "save them as JPEG"),
}


def open_picture(content: bytes) -> Image.Image:
    """Open the picture in the bytes of a file. Only HEIC is decoded at once; other formats are decoded on first use.

    Raises:
        UnidentifiedImageError: the format is not read here. A damaged file may raise any other error.
        DecompressionBombError: a HEIC file has more pixels than Pillow admits.
    """
    if "HEIC" not in READ or phone_kind(content) != "HEIC":
        return Image.open(io.BytesIO(content), formats=FORMATS)
    heif = import_module("pillow_heif").open_heif(content)  # not registered in Pillow, which other code uses too
    if heif.size[0] * heif.size[1] > (Image.MAX_IMAGE_PIXELS or float("inf")):
        raise Image.DecompressionBombError
    return heif.to_pillow()  # upright already


def phone_kind(content: bytes) -> str | None:
    """Tell from the first bytes of a file whether it is ``HEIC`` or ``AVIF``, as phones write; None for others.

    >>> phone_kind(b"....ftypheic........")
    'HEIC'
    """
    brand = content[8:12]
    if content[4:8] != b"ftyp" or brand not in _HEIF_BRANDS | _AVIF_BRANDS:
        return None
    end = min(int.from_bytes(content[:4], "big"), 256)
    others = {content[at : at + 4] for at in range(16, end, 4)}
    general = brand in (b"mif1", b"msf1")  # these do not tell the codec; the brands that follow do
    return "AVIF" if brand in _AVIF_BRANDS or (general and others & _AVIF_BRANDS) else "HEIC"
