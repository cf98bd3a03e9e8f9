"""Depth: which values are black and white in pictures of more than 8 bits (deep pictures), where files do not say."""

import io
import json
import math
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num, UInt8
from PIL import Image

from metarep.data.reading.formats import FORMATS
from metarep.data.reading.wide_colours import is_wide, wide_colours
from metarep.errors import Advice, Advised, DataError, Slot, counted
from metarep.machine.files import replacing

KINDS = ("16-bit", "32-bit", "floating-point")
WHITES = (255, 1023, 4095, 16383, 65535)  # of 8, 10, 12, 14 and 16 bits, as cameras and microscopes record them
LOOKED_AT = 400  # files of a kind that are read to find its range, spread over all of them
HEADER = 32  # bytes that tell a PNG of 16 bits, or a TIFF, from everything else
ADVICE = Advice("say {depth} or BLACK:WHITE if they are others", depth=Slot("BITS"))


class DepthWarning(Advised, UserWarning):
    """Black and white of deep pictures were assumed; the message says what was found, and how to say otherwise."""


@dataclass(frozen=True)
class Depth:
    """The values of black and white of each kind of deep picture.

    A file of 16 bits may hold the 12 bits of a camera, or temperatures from 28,000 to 31,000. Scaled as full 16 bits,
    such a picture would have 16 greys or fewer. One picture cannot tell its range, because it may be dark. So the
    range is chosen from all pictures of a folder together (:func:`notice`), and is saved with every result.

    Args:
        ranges: the values that become 0 and 255, by kind: ``16-bit``, ``32-bit`` or ``floating-point``.

    >>> Depth.of("12").ranges["16-bit"], Depth.of("28000:31000").ranges["16-bit"]
    ((0.0, 4095.0), (28000.0, 31000.0))
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
            raise DataError(f"{text}, not {value!r}") from None

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
        """
        low, high = _said(image) or self.ranges.get(kind) or assume(*span(values))
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


def notice(sources: Iterable[tuple[Any, str]], known: Depth | None = None) -> Depth:
    """Choose black and white for each kind of deep picture among the sources, from their values.

    Args:
        sources: files, bytes or open pictures, each with its name, as ``decode_all`` takes them. Of each kind at most
            400 are read, spread over all of them. Of a picture that is not deep, only the first bytes are read.
        known: ranges that are known already. They are returned as they are, with the chosen ones.

    Warns:
        DepthWarning: for each kind for which another range than the full 16 bits was assumed.
    """
    known = known or Depth()
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata
        deep = [source for source, name in sources if _may_be_deep(source)]
        spans: dict[str, list[tuple[Any, tuple[float, float]]]] = defaultdict(list)
        kinds = defaultdict(list)
        for source, kind in zip(deep, pool.map(_kind, deep), strict=True):
            if kind and kind not in known.ranges:
                kinds[kind].append(source)
        for kind, of_kind in kinds.items():
            some = of_kind[:: math.ceil(len(of_kind) / LOOKED_AT)]
            read = zip(some, pool.map(_span, some), strict=True)
            spans[kind] = [(source, ends) for source, ends in read if ends is not None]
    ranges = dict(known.ranges)
    for kind, pairs in spans.items():
        if pairs:
            low, high = min(ends[0] for _, ends in pairs), max(ends[1] for _, ends in pairs)
            ranges[kind] = black, white = assume(low, high)
            text = _message(kind, len(kinds[kind]), (low, high), ranges[kind])
            poor = _few_greys(pairs, ranges[kind])
            if poor or not (kind == "16-bit" and (black, white) == (0, 65535) and high > white / 2):
                warnings.warn(DepthWarning(text + poor, advice=ADVICE), stacklevel=2)
    return Depth(ranges)


def read_depth(path: Path) -> Depth:
    """Read the file that :func:`write_depth` wrote. If there is no such file, the depth is empty.

    Raises:
        DataError: the file is damaged.
    """
    if not path.exists():
        return Depth()
    try:
        return Depth.of(dict(json.loads(path.read_text())))
    except (ValueError, TypeError, DataError) as error:
        raise DataError(f"{path} is damaged: it should hold black and white of deep pictures ({error})") from error


def write_depth(path: Path, depth: Depth) -> None:
    """Write a depth to a JSON file, which is replaced by one rename."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(depth.as_dict()) + "\n")


def _message(kind: str, number: int, ends: tuple[float, float], taken: tuple[float, float]) -> str:
    bits = f" ({math.log2(taken[1] + 1):g} bits)" if taken[0] == 0 and taken[1] in WHITES else ""
    have = "picture has" if number == 1 else "pictures have"
    return (
        f"{number:,} {have} {kind} pixels, from {_n(ends[0])} to {_n(ends[1])}: {_n(taken[0])} is taken for black and "
        f"{_n(taken[1])} for white{bits}"
    )


def _few_greys(pairs: Sequence[tuple[Any, tuple[float, float]]], taken: tuple[float, float]) -> str:
    """A sentence on folders whose pictures are all much darker than the rest, or an empty text."""
    highest: dict[Path, float] = defaultdict(lambda: -math.inf)
    for source, (_, high) in pairs:
        if isinstance(source, Path):
            highest[source.parent] = max(highest[source.parent], high)
    dark = sorted(folder.name for folder, high in highest.items() if (high - taken[0]) * 16 <= taken[1] - taken[0])
    if not dark:
        return ""
    folders = ", ".join(dark[:3]) + (f" and {counted(len(dark) - 3, 'other folder')}" if len(dark) > 3 else "")
    return (
        f". Those in {folders} reach a sixteenth of that or less, and keep few greys: if they are of another camera, "
        "save them with 8 bits"
    )


def _n(number: float) -> str:
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:.4g}"


def _range(low: Any, high: Any) -> tuple[float, float]:  # noqa: ANN401 - from a user or from JSON
    """Black and white as finite numbers in rising order; otherwise a ValueError or a TypeError."""
    low, high = float(low), float(high)
    if not -math.inf < low < high < math.inf:
        raise ValueError
    return low, high


def is_deep(source: Any) -> bool:  # noqa: ANN401
    """Whether a picture, a file or its bytes is a deep picture whose file does not state black and white."""
    source = Path(source) if isinstance(source, str) else source
    known = isinstance(source, bytes | Path | Image.Image)
    return known and _may_be_deep(source) and _kind(source) is not None


def _may_be_deep(source: Any) -> bool:  # noqa: ANN401
    """Whether the first bytes are those of a TIFF or a PNG of 16 bits; True for a picture that is open already."""
    if isinstance(source, Image.Image):
        return True
    try:
        if isinstance(source, Path):
            if not source.is_file():  # a named pipe would block for ever
                return False
            with open(source, "rb", buffering=0) as file:
                head = file.read(HEADER)
        else:
            head = source[:HEADER]
    except OSError:
        return False  # decoding names the reason
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") or (head[:4] == b"\x89PNG" and head[24:25] == b"\x10")


def _kind(source: Any) -> str | None:  # noqa: ANN401
    """The kind of a deep picture; None if it is not deep, or if its file states black and white."""
    try:
        if isinstance(source, Image.Image):
            return kind_of(source)
        with _open(source) as image:
            return None if _said(image) else kind_of(image)
    except Exception:  # damaged in any way; decoding names the damage
        return None


def _span(source: Any) -> tuple[float, float] | None:  # noqa: ANN401
    """The span of the values of a deep picture; None if it cannot be read."""
    try:
        if isinstance(source, Image.Image):
            return span(np.array(source))
        with _open(source) as image:
            colours = wide_colours(image)
            return span(np.array(image) if colours is None else colours)
    except Exception:
        return None


def _open(source: Path | bytes) -> Image.Image:
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)


def _said(image: Image.Image) -> tuple[float, float] | None:
    """Black and white if the file states them, else None: a PGM, which Pillow scales to 16 bits, or a 12-bit TIFF."""
    if image.format == "PPM" and image.mode == "I":
        return 0.0, 65535.0
    bits = _tag(image, 258)  # bits of a sample
    return (0.0, 4095.0) if bits in (12, (12,)) else None


def _tag(image: Image.Image, number: int) -> Any:  # noqa: ANN401
    """A tag of a TIFF; None if the picture does not have it."""
    tags = getattr(image, "tag_v2", None)
    return tags.get(number) if tags is not None else None
