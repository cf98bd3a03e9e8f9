"""Decode images: any common file of a user becomes uint8 pixels of one shape."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from metarep.data.reading.depth import Depth, kind_of
from metarep.data.reading.formats import EXTENSIONS, HINTS, READ, open_picture, phone_kind
from metarep.data.reading.hushed import hushed
from metarep.data.reading.wide_colours import wide_colours
from metarep.errors import Advice, DataError, MetarepError, TooLargeError, one_line

__all__ = ["ADVICE", "EXTENSIONS", "MAX_BYTES", "MAX_PIXELS", "Source", "cores", "decode", "decode_all"]

Source = Path | bytes | Image.Image
MAX_PIXELS = 64_000_000
MAX_BYTES = 1 << 30
LONGEST = 1 << 24  # pixels a side: Pillow computes the edges of what it scales in single precision

_SKIP = Advice("leave such files out with {skip_bad}", skip_bad=True)
ADVICE = (Advice("replace or remove it"), _SKIP)  # for an image that cannot be read
_TURNS = {  # EXIF orientation -> the operation that turns the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(
    source: Source,
    *,
    size: tuple[int, int] | None,
    channels: int,
    name: str,
    stretch: float = 1.0,
    depth: Depth | None = None,
    most_pixels: int = MAX_PIXELS,
) -> UInt8[np.ndarray, "c h w"]:
    """Decode one image: a JPEG, PNG, WebP, BMP, TIFF or PPM file, the first frame of a GIF, or an open picture.

    AVIF is read if Pillow reads it, and HEIC if ``pillow-heif`` is installed (the extra ``heic``). The content of a
    file decides its format, never its name. EXIF orientation is applied, transparency is laid on white, and CMYK and
    palettes become RGB. Grey of 16 or 32 bits or in floating point is scaled to 8 bits (Pillow itself clips it).
    With ``size``, the picture is scaled with antialiasing until it just covers the size, and its centre is cut out.
    So the shorter side is kept whole, and the ends of the longer side are lost.

    Args:
        source: a file, its bytes, or a picture that Pillow holds.
        size: height and width in pixels; None keeps those of the picture.
        channels: 1 (luminance) or 3 (RGB).
        name: the name of the image in errors.
        stretch: how far the aspect ratio may change before the ends are cut off. With 4/3, a photograph of 4:3 is kept
            whole in a square. With 1, the aspect ratio never changes.
        depth: black and white of 16-bit, 32-bit and floating-point pixels. For kinds that it does not know, the range
            of this picture is taken. See :func:`metarep.data.reading.depth_survey.notice`.
        most_pixels: larger pictures are refused before they are decoded.

    Returns:
        The pixels, from 0 (black) to 255; an array of its own.

    Raises:
        TooLargeError: the image has more pixels or bytes than are read.
        DataError: the file is empty, truncated, damaged or unreadable, or it is not an image.

    >>> import io
    >>> file = io.BytesIO()
    >>> Image.new("RGBA", (40, 20), (0, 0, 0, 0)).save(file, "PNG")
    >>> pixels = decode(file.getvalue(), size=(8, 8), channels=1, name="clear.png")
    >>> pixels.shape, int(pixels.min())
    ((1, 8, 8), 255)
    """
    if channels not in (1, 3):
        raise DataError(f"images have 1 or 3 channels, not {channels}")
    if stretch < 1:
        raise DataError(f"stretch must be at least 1, not {stretch}")
    picture = read_picture(source, size, name, depth or Depth(), most_pixels)
    try:
        if size is not None:
            picture = picture.resize(
                (size[1], size[0]),
                Image.Resampling.BILINEAR,
                box=crop_box(picture.width, picture.height, size, stretch),
            )
        pixels = np.array(picture.convert("L" if channels == 1 else "RGB"))
    except ValueError as error:  # the file has been read, so this is an error of metarep
        raise MetarepError(
            f"{name}, a picture of {picture.width} x {picture.height} pixels, could not be scaled to {size} ({error}): "
            "that is a fault of metarep and not of the file; please report it"
        ) from error
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def decode_all(
    sources: Iterable[tuple[Source, str]],
    *,
    size: tuple[int, int] | None,
    channels: int,
    stretch: float = 1.0,
    depth: Depth | None = None,
    threads: int | None = None,
) -> Iterator[np.ndarray | DataError]:
    """Decode many images on all cores. Yield, in order, the pixels of each or the error that ``decode`` would raise.

    Args:
        sources: files, bytes or open pictures, each with its name for errors; taken one by one as they are needed.
        size, channels, stretch, depth: see :func:`decode`.
        threads: the number of threads; None for one a core.
    """

    def attempt(item: tuple[Source, str]) -> np.ndarray | DataError:
        try:
            return decode(item[0], size=size, channels=channels, name=item[1], stretch=stretch, depth=depth)
        except DataError as error:
            return error

    workers = threads or min(16, cores())
    if workers == 1:
        yield from map(attempt, sources)
        return
    window = 32 * workers  # Executor.map would hold all results of a large folder in memory
    ahead: deque[Future[np.ndarray | DataError]] = deque()  # decoded while the caller works on earlier ones
    pool = ThreadPoolExecutor(workers)
    try:
        for source in sources:
            ahead.append(pool.submit(attempt, source))
            if len(ahead) == window:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:  # do not wait: garbage collection may close an abandoned iterator in a thread of this pool
        pool.shutdown(wait=False, cancel_futures=True)


def cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_picture(
    source: Source, size: tuple[int, int] | None, name: str, depth: Depth, most: int = MAX_PIXELS
) -> Image.Image:
    """Read a picture as :func:`decode` does, upright and as "L" or "RGB", but without scaling it to ``size``.

    With ``size``, a JPEG may be decoded at a fraction of its size, but at twice ``size`` or more.
    """
    try:
        with hushed(), _open(source, name) as image:
            if image.width * image.height > most or max(image.size) > LONGEST:
                raise _too_large(name, f"{image.width} x {image.height} pixels", most)
            if size is not None:
                # A JPEG can be decoded at a half, a quarter or an eighth; twice the target leaves the filter its work.
                image.draft(None, (2 * max(size), 2 * max(size)))
            colours = wide_colours(image)
            image.load()
            return _upright(_opaque(image, colours, depth, name), image)
    except (DataError, MemoryError):
        raise
    except Image.UnidentifiedImageError:
        raise DataError(
            f"{name} is not an image of a known kind ({', '.join(READ)}), or it is damaged at its start", advice=ADVICE
        ) from None
    except Image.DecompressionBombError:
        raise _too_large(name, "far more pixels than Pillow admits", most) from None
    except (
        Exception
    ) as error:  # hostile files make Pillow raise almost anything: struct.error, KeyError, SyntaxError ...
        raise DataError(f"{name} is truncated or damaged ({one_line(error)})", advice=ADVICE) from error


def _open(source: Source, name: str) -> Image.Image:
    if isinstance(source, Image.Image):
        return source.copy()  # it is closed after use, and is not ours
    content = source if isinstance(source, bytes) else _read(source, name)
    if not content:
        raise DataError(f"{name} is an empty file", advice=ADVICE)
    kind = phone_kind(content)
    if kind and kind not in READ:
        raise DataError(f"{name} is {kind}, as phones save pictures: {HINTS['.' + kind.lower()]}", advice=ADVICE)
    return open_picture(content)


def _read(path: Path, name: str) -> bytes:
    try:
        if path.exists() and not path.is_file():  # a named pipe would block for ever
            raise DataError(f"{name} is not a file", advice=ADVICE)
        if path.stat().st_size > MAX_BYTES:
            raise _too_large(name, f"{path.stat().st_size:,} bytes")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{name} cannot be read ({error.strerror or error})", advice=ADVICE) from error


def _too_large(name: str, size: str, most: int = MAX_PIXELS) -> TooLargeError:
    limit = f"at most {most / 1e6:g} megapixels and {MAX_BYTES >> 30} GiB are read"
    return TooLargeError(f"{name} is too large: {size}, {limit}", advice=("shrink it", _SKIP))


def _opaque(image: Image.Image, colours: np.ndarray | None, depth: Depth, name: str) -> Image.Image:
    """Convert a loaded picture to "L" or "RGB": transparency is laid on white, deep pictures are scaled to 8 bits."""
    if kind := kind_of(image):
        return Image.fromarray(depth.in_8_bits(np.array(image), image, kind))
    if colours is not None:
        narrow = Image.fromarray(depth.in_8_bits(colours, image, "16-bit"))
        if image.mode != "RGBA":
            return narrow
        narrow.putalpha(image.getchannel("A"))
        image = narrow
    if image.mode == "LAB":
        raise DataError(f"{name} has its colours as CIELAB, which is not read (save it as RGB)", advice=ADVICE)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        clear = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _upright(picture: Image.Image, opened: Image.Image) -> Image.Image:
    """Turn a picture upright by its EXIF orientation. Unreadable metadata is ignored."""
    try:
        turn = _TURNS.get(opened.getexif().get(0x0112, 1))
    except Exception:  # as above: damaged metadata raises almost anything
        turn = None
    return picture if turn is None else picture.transpose(turn)


def crop_box(width: int, height: int, size: tuple[int, int], stretch: float) -> tuple[float, float, float, float]:
    """The part of a picture that is kept: left, top, right and bottom in pixels, never beyond its edges.

    Args:
        width, height: size of the picture in pixels.
        size: height and width of the result in pixels.
        stretch: see :func:`decode`.

    >>> crop_box(400, 200, (100, 100), 1.0), crop_box(400, 300, (100, 100), 4 / 3)
    ((100.0, 0.0, 300.0, 200.0), (0.0, 0.0, 400.0, 300.0))
    """
    across, down = width / size[1], height / size[0]  # pixels of the picture for one of the result
    across, down = min(across, stretch * down), min(down, stretch * across)
    left, top = max(0.0, (width - across * size[1]) / 2), max(0.0, (height - down * size[0]) / 2)
    return left, top, width - left, height - top  # a product of a rounded quotient may be greater than what was divided
