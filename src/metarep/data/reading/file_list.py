"""FileList: the paths of millions of files in little memory."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import SupportsIndex, overload

import numpy as np


class FileList(Sequence[Path]):
    """A sequence of paths that is kept as text. A list of paths takes ten times the memory.

    Args:
        paths: the paths, in order.

    >>> files = FileList([Path("moth/1.png"), Path("moth/2.png")])
    >>> len(files), files[-1].name, [file.name for file in files[:1]]
    (2, '2.png', ['1.png'])
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        encoded = [os.fsencode(path) for path in paths]
        self._text = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    @classmethod
    def join(cls, lists: Iterable["FileList"]) -> "FileList":
        """The paths of several lists, one list after the other."""
        lists, joined = list(lists), cls(())
        firsts = np.cumsum([0, *(len(each.text) for each in lists)])
        joined._text = b"".join(each.text for each in lists)
        ends = [each.ends[1:] + first for each, first in zip(lists, firsts, strict=False)]
        joined._ends = np.concatenate([np.zeros(1, np.int64), *ends])
        return joined

    @property
    def text(self) -> bytes:
        """All paths, one after the other."""
        return self._text

    @property
    def ends(self) -> np.ndarray:
        """The position in ``text`` at which each path ends, after a 0."""
        return self._ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: SupportsIndex) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> list[Path]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Path | list[Path]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        return Path(os.fsdecode(self._text[self._ends[row] : self._ends[row + 1]]))
