"""Depth: which values are black and white in pictures of more than 8 bits (deep pictures), where files do not say."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num, UInt8
from PIL import Image

from metarep.data.reading.wide_colours import is_wide
from metarep.errors import Advised, DataError
from metarep.machine.files import replacing
from metarep.machine.untrusted import parse_json

LONGEST = 1 << 12  # bytes that are read of a file of black and white
KINDS = ("16-bit", "32-bit", "floating-point")
WHITES = (255, 1023, 4095, 16383, 65535)  # of 8, 10, 12, 14 and 16 bits, as cameras and microscopes record them


class DepthWarning(Advised, UserWarning):
    """Black and white of deep pictures were assumed; the message says what was assumed, and how to set other values."""


@dataclass(frozen=True)
class Depth:
    """The values of black and white of each kind of deep picture.

    A file of 16 bits may hold the 12 bits of a camera, or temperatures from 28,000 to 31,000. Scaled as full 16 bits,
    such a picture would have 16 greys or fewer. One picture cannot tell its range, because it may be dark. So the
    range is chosen from all pictures of a folder together, and is saved with every result; see
    :func:`metarep.data.reading.depth_survey.notice`.

    Args:
        ranges: the values that become 0 and 255, by kind: ``16-bit``, ``32-bit`` or ``floating-point``.

    >>> Depth.of("12").ranges["16-bit"], Depth.of("28000:31000").ranges["16-bit"]
    ((0.0, 4095.0), (28000.0, 31000.0))
    >>> Depth.of(12).as_dict()["16-bit"]
    [0.0, 4095.0]
    """

    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, value: "Depth | str | int | Mapping[str, Any] | None") -> "Depth":
        """Make a depth of a user's setting.

        Args:
            value: a number of bits, ``BLACK:WHITE``, a dictionary from :meth:`as_dict`, a depth, or None for nothing.

        Raises:
            DataError: the value is something else. The message quotes it.
        """
        if isinstance(value, Depth):
            return value
        if value is None:
            return cls()
        try:
            if isinstance(value, Mapping):
                return cls({kind: _range(*value[kind]) for kind in value if kind in KINDS})
            text = str(value)
            if re.fullmatch(r"[0-9]{1,2}", text) and 1 <= int(text) <= 32:
                return cls(dict.fromkeys(KINDS, (0.0, 2.0 ** int(text) - 1)))
            return cls(dict.fromkeys(KINDS, _range(*text.split(":"))))
        except (TypeError, ValueError):
            text = "depth is a number of bits from 1 to 32, as in 12, or black and white, as in 28000:31000"
            raise DataError(f"{text}, not {repr(value)[:80]}") from None

    def as_dict(self) -> dict[str, list[float]]:
        """The ranges as a dictionary that JSON can hold."""
        return {kind: list(ends) for kind, ends in self.ranges.items()}

    def __or__(self, other: "Depth") -> "Depth":
        """Combine two depths. For kinds that both know, ``other`` has priority."""
        return Depth({**self.ranges, **other.ranges})

    def in_8_bits(
        self, values: Num[np.ndarray, "*shape"], image: Image.Image, kind: str
    ) -> UInt8[np.ndarray, "*shape"]:
        """Scale the values of a deep picture to 0 to 255.

        Black and white are taken from the file if it states them, else from here, else from the range of the values.

        Args:
            values: the greys or colours of the picture. NaN, which is a pixel without a measurement, becomes black.
            image, kind: the picture, whose format and tags are read, and its kind from :func:`kind_of`.

        >>> Depth.of(12).in_8_bits(np.array([0.0, 1365.0, 4095.0]), Image.new("I;16", (3, 1)), "16-bit")
        array([  0,  85, 255], dtype=uint8)
        """
        low, high = stated_range(image) or self.ranges.get(kind) or assume(*span(values))
        unit = np.nan_to_num((values.astype(np.float64) - low) / (high - low), nan=0.0)
        greys = (unit.clip(0, 1) * 255).round().astype(np.uint8)
        return 255 - greys if _tag(image, 262) == 0 else greys  # tag 262 of a TIFF may say that 0 is white


def kind_of(image: Image.Image) -> str | None:
    """The kind of a deep picture, one of ``KINDS``; None for others. For colours it must not be decoded yet."""
    if is_wide(image):
        return "16-bit"
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return "16-bit"  # older versions of Pillow give a PNG of 16 bits the mode "I"
    return {"I": "32-bit", "F": "floating-point"}.get(image.mode)


def span(values: Num[np.ndarray, "..."]) -> tuple[float, float]:
    """The least and the greatest value, without one pixel in 10,000 at either end, which may be dead or hot.

    NaN and infinite values are left out. If no others are left, the span is 0 to 1.

    >>> span(np.array([3.0, np.nan, 7.0]))
    (3.0, 7.0)
    """
    flat = values[np.isfinite(values)]
    if not flat.size:
        return 0.0, 1.0
    drop = flat.size // 10_000
    ends = np.partition(flat, (drop, flat.size - 1 - drop))
    return float(ends[drop]), float(ends[flat.size - 1 - drop])


def assume(low: float, high: float) -> tuple[float, float]:
    """Choose black and white for pictures whose values go from ``low`` to ``high``.

    The choice is 0 and 1, or else the full range of the smallest of 8, 10, 12, 14 and 16 bits that holds the values. It
    is ``low`` and ``high`` themselves if they use less than a quarter of that range, or do not lie in 16 bits.

    >>> assume(3, 3800), assume(28_000.0, 31_000.0), assume(0, 0.9)
    ((0.0, 4095.0), (28000.0, 31000.0), (0.0, 1.0))
    """
    white = next((each for each in (1, *WHITES) if high <= each), None)
    if low >= 0 and white is not None and (low == high or (high - low) * 4 >= white):
        return 0.0, float(white)
    return (low, high) if low < high else (low - 1, high)


def read_depth(path: Path) -> Depth:
    """Read the file that :func:`write_depth` wrote. If there is no such file, the depth is empty.

    Raises:
        DataError: the file is damaged.
    """
    if not path.exists():
        return Depth()
    with path.open("rb") as file:
        content = file.read(LONGEST)
    try:
        return Depth.of(dict(parse_json(content)))
    except (ValueError, TypeError, DataError) as error:
        raise DataError(f"{path} is damaged: it should hold black and white of deep pictures ({error})") from error


def write_depth(path: Path, depth: Depth) -> None:
    """Write a depth to a JSON file, which is replaced by one rename."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(depth.as_dict()) + "\n")


def _range(low: Any, high: Any) -> tuple[float, float]:  # noqa: ANN401 - from a user or from JSON
    """Black and white as finite numbers in rising order; otherwise a ValueError or a TypeError."""
    low, high = float(low), float(high)
    if not -math.inf < low < high < math.inf:
        raise ValueError
    return low, high


def stated_range(image: Image.Image) -> tuple[float, float] | None:
    """Black and white if the file states them, else None: a PGM, which Pillow scales to 16 bits, or a 12-bit TIFF."""
    if image.format == "PPM" and image.mode == "I":
        return 0.0, 65535.0
    bits = _tag(image, 258)  # bits of a sample
    return (0.0, 4095.0) if bits in (12, (12,)) else None


def _tag(image: Image.Image, number: int) -> Any:  # noqa: ANN401
    """A tag of a TIFF; None if the picture does not have it."""
    tags = getattr(image, "tag_v2", None)
    return tags.get(number) if tags is not None else None
