"""Omniglot: 1,623 handwritten characters of 50 alphabets, 20 drawings each, in the two splits that papers use."""

import io
from hashlib import sha256
from pathlib import Path
from re import compile as pattern
from zipfile import ZipFile

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from metarep.data.datasets.archives import open_zip, read_entry
from metarep.data.datasets.cache import cached_images
from metarep.data.datasets.download import fetch
from metarep.data.datasets.lists import split_list
from metarep.data.datasets.options import Options
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.errors import DataError, unknown

ABOUT = (
    "1,623 handwritten characters x 20 drawings, 105 x 105, kept at 28 x 28 (Lake et al. 2015, MIT); :vinyals or :lake"
)
URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
ARCHIVES = {  # name: (characters, digest of the decoded pixels)
    "images_background.zip": (964, "1172c636734a347a343ec697dd97c7bf8cf9a0b8585fdc3f06c8e276f3633ecf"),
    "images_evaluation.zip": (659, "e1b2a8d6437057220f345d4babf2b6003a519611bfc141e4d792ed155011bc21"),
}
DRAWINGS = 20  # of each character
SIDE = 105  # original height and width in pixels
# Validation of the lake split: five background alphabets that have no related script among the other 25. (The two
# Georgian scripts stay together in training, as do the Japanese and the Canadian syllabaries.)
LAKE_VALIDATION = ("Armenian", "Burmese_(Myanmar)", "Korean", "N_Ko", "Tagalog")
ENTRY = pattern(r"(?:.*/)?([^/]+/character\d\d)/(\d{4}_\d\d\.png)")


def load(argument: str, split: str, options: Options) -> Split:
    """Load one part of Omniglot: black ink (0) on white ground (255), uint8 ``(n, 1, size, size)``.

    ``vinyals`` (the default) has 1,028 / 172 / 423 characters. Each is there four times, rotated by 0, 90, 180 and
    270 degrees counter-clockwise, and each rotation is a class of its own (Vinyals et al. 2016, lists of Snell et al.
    2017). The four classes share a key, because a network that was trained on a character knows its rotations too.
    ``lake`` is the original division without rotations: 20 alphabets for evaluation and 30 background alphabets, of
    which ``LAKE_VALIDATION`` are for validation. The parts of the two splits overlap: never test on one what was
    trained on the other.

    Args:
        argument: ``vinyals``, ``lake`` or empty.
        split: ``train``, ``val`` or ``test``.
        options: ``size`` defaults to 28; 105 gives the original pixels.

    Raises:
        MetarepError: the argument is unknown. ``DataError`` if an archive is damaged or cannot be downloaded.
    """
    kind = argument or "vinyals"
    if kind not in ("vinyals", "lake"):
        raise unknown("split of omniglot", kind, ["vinyals", "lake"])
    images, characters = load_characters(options)
    row = {name: i for i, name in enumerate(characters)}
    chosen = _vinyals(split) if kind == "vinyals" else _lake(split, characters)
    drawings = images.view(len(characters), DRAWINGS, *images.shape[1:])[[row[name] for name in chosen]]
    keys = [f"omniglot/{name}" for name in chosen]
    if kind == "vinyals":
        rotated = torch.empty(len(chosen), 4, *drawings.shape[1:], dtype=torch.uint8)
        for k in range(4):
            rotated[:, k] = torch.rot90(drawings, k, (-2, -1))
        drawings = rotated
        chosen = [f"{name}/rot{90 * k:03d}" for name in chosen for k in range(4)]
        keys = [key for key in keys for _ in range(4)]
    classes = torch.arange(len(chosen)).repeat_interleave(DRAWINGS)
    labels = Labels(classes, tuple(chosen), tuple(keys))
    return Split(ImageBank(drawings.reshape(-1, *images.shape[1:])), labels, f"omniglot:{kind}/{split}")


def load_characters(options: Options) -> tuple[UInt8[Tensor, "n 1 h w"], list[str]]:
    """Load all 32,460 drawings, memory-mapped, and the names of the characters, ``Alphabet/characterNN``.

    Character ``i`` owns rows ``20 i`` to ``20 i + 19``, sorted by the person who drew them. The background characters
    come first, and both parts are sorted by name.
    """
    size = options.size or 28

    def build() -> tuple[np.ndarray, dict]:
        images = np.empty((sum(count for count, _ in ARCHIVES.values()) * DRAWINGS, 1, size, size), dtype=np.uint8)
        characters: list[str] = []
        for name in ARCHIVES:
            start = len(characters) * DRAWINGS
            characters += _decode_archive(fetch(URL + name, name, options), images[start:])
        return images, {"characters": characters}

    images, facts = cached_images(f"omniglot-{size}-lanczos", build)
    return images, facts["characters"]


def _decode_archive(path: Path, out: np.ndarray) -> list[str]:
    """Decode one archive into ``out``, check its pixels, and return its characters in order.

    The check is of the content and not of the file, so a copy that was zipped again passes.
    """
    count, expected = ARCHIVES[path.name]
    digest, characters = sha256(), []
    side = out.shape[-1]
    with open_zip(path) as archive:
        entries = sorted((*match.groups(), name) for name in archive.namelist() if (match := ENTRY.fullmatch(name)))
        if len(entries) != count * DRAWINGS:
            raise DataError(
                f"{path} holds {len(entries):,} drawings instead of {count * DRAWINGS:,}; delete it and fetch it again"
            )
        for row, (character, file, name) in enumerate(entries):
            image = decode_drawing(archive, name)
            digest.update(f"{character}/{file}".encode() + image.tobytes())
            out[row, 0] = np.asarray(shrink(image, side))
            if row % DRAWINGS == 0:
                characters.append(character)
    if digest.hexdigest() != expected:
        raise DataError(
            f"{path} does not hold Omniglot's pixels (digest {digest.hexdigest()}); delete it and fetch it again"
        )
    return characters


def decode_drawing(archive: ZipFile, name: str) -> Image.Image:
    """Decode one drawing of an archive to 8-bit grey: ground 255, ink 0.

    Raises:
        DataError: the entry is not a PNG of 105 x 105 pixels.
    """
    try:
        image = Image.open(io.BytesIO(read_entry(archive, name)), formats=["PNG"])
        if image.size != (SIDE, SIDE):
            width, height = image.size
            raise DataError(
                f"{archive.filename}: {name} has {width} x {height} pixels instead of {SIDE} x {SIDE}; fetch the "
                "archive again"
            )
        return image.convert("L")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DataError(
            f"{archive.filename}: {name} is not a readable PNG ({error}); fetch the archive again"
        ) from error


def shrink(image: Image.Image, side: int) -> Image.Image:
    """Resize a drawing to ``side`` x ``side`` pixels by a Lanczos filter.

    At 28 pixels a stroke is thinner than one pixel. Nearest-pixel resizing breaks it apart, a box filter leaves it
    ragged, and a bilinear filter leaves it grey.
    """
    return image if side == SIDE else image.resize((side, side), Image.Resampling.LANCZOS)


def _vinyals(split: str) -> list[str]:
    """The characters of one part of the vinyals split."""
    lists = split_list("omniglot_vinyals")
    return [f"{alphabet}/character{number:02d}" for alphabet, numbers in lists[split].items() for number in numbers]


def _lake(split: str, characters: list[str]) -> list[str]:
    """The characters of one part of the lake split."""
    background = ARCHIVES["images_background.zip"][0]
    if split == "test":
        return characters[background:]
    validation = [name.split("/")[0] in LAKE_VALIDATION for name in characters[:background]]
    return [name for name, held_out in zip(characters, validation, strict=False) if held_out == (split == "val")]
