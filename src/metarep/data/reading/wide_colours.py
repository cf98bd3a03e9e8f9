"""Colours of 16 bits. Pillow keeps only the upper byte of each, so the lower byte is decoded by swapping the two."""

import io
import re
from typing import Any

import numpy as np
from jaxtyping import UInt16
from PIL import Image

_WIDE = re.compile(r"RGB[AaX]?;16[BLN]")
_OTHER_END = {"B": "L", "L": "B", "N": "B" if np.little_endian else "L"}


def is_wide(image: Image.Image) -> bool:
    """Whether a picture has colours of 16 bits. It must be open and not decoded yet."""
    tiles = getattr(image, "tile", None) or []
    return bool(tiles) and all(_WIDE.fullmatch(_raw_mode(tile[3])) for tile in tiles)


def wide_colours(image: Image.Image) -> UInt16[np.ndarray, "h w 3"] | None:
    """Decode all 16 bits of the colours of a picture.

    Args:
        image: an open picture that is not decoded yet. It is not changed.

    Returns:
        Red, green and blue; None if the picture has 8 bits or fewer. Opacity is left out: 8 bits of it are enough.
    """
    file = getattr(image, "fp", None)
    if file is None or not is_wide(image):
        return None
    offset = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(offset)
    upper, lower = (Image.open(io.BytesIO(content), formats=(str(image.format),)) for _ in range(2))
    lower.tile = [(*tile[:3], _swapped(tile[3])) for tile in lower.tile]  # type: ignore[attr-defined, misc]
    high, low = (np.array(picture)[..., :3] for picture in (upper, lower))
    return high.astype(np.uint16) * 256 + low


def _raw_mode(arguments: Any) -> str:  # noqa: ANN401 - a string for a PNG, a tuple for a TIFF
    """The raw mode among the arguments of Pillow's decoder, such as ``RGB;16B``."""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _swapped(arguments: Any) -> Any:  # noqa: ANN401
    """The arguments of Pillow's decoder with the other byte order."""
    mode = _raw_mode(arguments)
    mode = mode[:-1] + _OTHER_END[mode[-1]]
    return (mode, *arguments[1:]) if isinstance(arguments, tuple) else mode
