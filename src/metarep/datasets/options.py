"""Options: what every data set can be asked for, whatever it is."""

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from metarep.errors import DataError


class LeftOutWarning(UserWarning):
    """An image cannot be read and was left out, as ``skip_bad`` asks; the message names it and says why."""


@dataclass(frozen=True)
class Options:
    """How to load a data set.

    Args:
        size: height and width in pixels; None for the data set's own default.
        data_dir: a folder that already holds the archives or images; None for ``METAREP_DATA``, if that is set.
        skip_bad: leave out images that cannot be read, each with a warning, instead of stopping at the first.

    Raises:
        DataError: a size below 1, or a ``data_dir`` that is no folder.
    """

    size: int | None = None
    data_dir: Path | None = None
    skip_bad: bool = False

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


def tell_left_out(reasons: Iterable[str]) -> None:
    """A ``LeftOutWarning`` for each image that ``skip_bad`` left out, for the ``load`` of a data set to call."""
    for reason in reasons:
        warnings.warn(f"left out: {reason}", LeftOutWarning, stacklevel=3)
