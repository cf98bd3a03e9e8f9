"""Options: what every data set can be asked for, whatever it is."""

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from metarep.datasets.depth import Depth
from metarep.errors import DataError

MANY = 0.01  # share of images left out of which more is said


class LeftOutWarning(UserWarning):
    """An image cannot be read and was left out, as ``skip_bad`` asks; the message names it and says why."""


class ManyLeftOutWarning(LeftOutWarning):
    """More than one image in a hundred was left out: what comes of the rest may not be what was asked for."""

    loud = True  # the command line says it again at its end


@dataclass(frozen=True)
class Options:
    """How to load a data set.

    Args:
        size: height and width in pixels; None for the data set's own default.
        data_dir: a folder that already holds the archives or images; None for ``METAREP_DATA``, if that is set.
        skip_bad: leave out images that cannot be read, each with a warning, instead of stopping at the first.
        depth: black and white of pictures of more than 8 bits, where they are known; see :mod:`metarep.datasets.depth`.

    Raises:
        DataError: a size below 1, or a ``data_dir`` that is no folder.
    """

    size: int | None = None
    data_dir: Path | None = None
    skip_bad: bool = False
    depth: Depth = field(default_factory=Depth)

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise DataError(f"size must be at least 1 pixel, not {self.size}")
        named = os.environ.get("METAREP_DATA")
        asked, place = ("data_dir", self.data_dir) if self.data_dir is not None else ("METAREP_DATA", named or None)
        if place is None:
            return
        folder = Path(place).expanduser()
        if not folder.is_dir():
            raise DataError(f"{asked} names {str(place)!r}, which is not a folder")
        object.__setattr__(self, "data_dir", folder)  # frozen, yet the path is settled once, here


def tell_left_out(reasons: Iterable[str], total: int) -> None:
    """A ``LeftOutWarning`` for each image that ``skip_bad`` left out, and a ``ManyLeftOutWarning`` where they are many.

    Args:
        reasons: of each, which it is and why.
        total: all images, those left out included.
    """
    told = list(reasons)
    number = len(told)
    for reason in told:
        warnings.warn(f"left out: {reason}", LeftOutWarning, stacklevel=3)
    if number > MANY * total:
        share = f"{number:,} of {total:,} images ({100 * number / total:.1f} %)"
        text = f"LEFT OUT: {share}, which cannot be read; the reasons stand above. Results hold for the others only"
        warnings.warn(text, ManyLeftOutWarning, stacklevel=3)
