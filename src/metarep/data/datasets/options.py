"""Options: the settings that every data set can be loaded with."""

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from metarep.data.reading.depth import Depth
from metarep.errors import DataError

MANY = 0.01  # share of images left out above which a second warning is given


class LeftOutWarning(UserWarning):
    """Warns that an image cannot be read and was left out because of ``skip_bad``, and says why."""


class ManyLeftOutWarning(LeftOutWarning):
    """Warns that more than one image in a hundred was left out, so results may not hold for the whole data set."""

    loud = True  # the command line says it again at its end


@dataclass(frozen=True)
class Options:
    """The settings for loading a data set.

    Args:
        size: height and width in pixels; None for the default of the data set.
        data_dir: a folder that already holds the archives or images; None for ``METAREP_DATA``, if that is set.
        skip_bad: leave out images that cannot be read, with a warning for each, and do not stop at the first.
        depth: which values are black and white in pictures of more than 8 bits, where that is known; see
            :mod:`metarep.data.reading.depth`.

    Raises:
        DataError: the size is below 1, or ``data_dir`` is not a folder.
    """

    size: int | None = None
    data_dir: Path | None = None
    skip_bad: bool = False
    depth: Depth = field(default_factory=Depth)

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise DataError(f"size must be at least 1 pixel, not {self.size}")
        named = os.environ.get("METAREP_DATA")
        setting, path = ("data_dir", self.data_dir) if self.data_dir is not None else ("METAREP_DATA", named or None)
        if path is None:
            return
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise DataError(
                f"{setting} names {str(path)!r}, which is not a folder; make it, or set {setting} to another folder"
            )
        object.__setattr__(self, "data_dir", folder)  # the dataclass is frozen; the path is resolved only here


def warn_of_left_out(reasons: Iterable[str], total: int) -> None:
    """Give a ``LeftOutWarning`` for each image left out by ``skip_bad``, and a ``ManyLeftOutWarning`` if many are.

    Args:
        reasons: for each image left out, its name and why it cannot be read.
        total: the number of all images, including those left out.
    """
    reasons = list(reasons)
    number = len(reasons)
    for reason in reasons:
        warnings.warn(f"left out: {reason}", LeftOutWarning, stacklevel=3)
    if number > MANY * total:
        share = f"{number:,} of {total:,} images ({100 * number / total:.1f} %)"
        text = f"LEFT OUT: {share}, which cannot be read; the reasons are above. Results hold for the other images only"
        warnings.warn(text, ManyLeftOutWarning, stacklevel=3)
