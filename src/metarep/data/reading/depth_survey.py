"""Survey of pictures: find those of more than 8 bits (deep pictures), and choose black and white from their values."""

import io
import math
import os
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from metarep.data.reading.depth import WHITES, Depth, DepthWarning, assume, kind_of, span, stated_range
from metarep.data.reading.formats import FORMATS
from metarep.data.reading.hushed import hushed
from metarep.data.reading.wide_colours import wide_colours
from metarep.errors import Advice, Slot, counted

LOOKED_AT = 400  # files of a kind that are read to find its range, spread over all of them
HEADER = 32  # the first bytes of a file, enough to recognise a PNG of 16 bits or a TIFF
ADVICE = Advice("say {depth} or BLACK:WHITE if they are others", depth=Slot("BITS"))


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
    with hushed(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
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


def is_deep(source: Any) -> bool:  # noqa: ANN401
    """Whether a picture, a file or its bytes is a deep picture whose file does not state black and white."""
    source = Path(source) if isinstance(source, str) else source
    known = isinstance(source, bytes | Path | Image.Image)
    return known and _may_be_deep(source) and _kind(source) is not None


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
            return None if stated_range(image) else kind_of(image)
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
