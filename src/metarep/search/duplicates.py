"""Finds duplicates in an index: copies by a hash of their pixels, look-alikes by the vectors of the encoder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from metarep.data.copies.near_copies import find_copies
from metarep.data.copies.near_pairs import Groups, linked
from metarep.data.copies.picture_hash import LENGTH, Hashes, picture_hash
from metarep.data.reading.decode import decode_all
from metarep.data.reading.folder_tree import shown
from metarep.data.reading.photographs import STRETCH
from metarep.errors import DataError
from metarep.index.index import Index

EXACT = 300_000  # with more vectors, an approximate index is searched for the neighbours of each
NEIGHBOURS = 16  # neighbours of each vector in such a search
SIDE = 64  # side in pixels at which a file is decoded for its hash
FILES = 256  # files that are decoded together

Watch = Callable[[int], None]


@dataclass(frozen=True)
class Group:
    """Images that are copies of each other or only look alike.

    Args:
        kind: ``copies`` or ``look-alikes``.
        ids: their ids, ascending.
    """

    kind: Literal["copies", "look-alikes"]
    ids: list[int]


def near_duplicates(index: Index, threshold: float, *, batch: int = 256, watch: Watch | None = None) -> list[list[int]]:
    """Groups the vectors of an index by single linkage: the connected components of all near pairs.

    Two vectors are a near pair if their cosine is at least the threshold. Two members of a group that are linked
    through others may be less similar. All pairs are compared, with one exception: an approximate index of more than
    300,000 vectors is searched for the 16 nearest of each vector, and may miss a pair.

    Args:
        index: an index of any kind.
        threshold: the smallest cosine of a near pair, -1 to 1.
        batch: the number of vectors in one such search.
        watch: called with the number of vectors that are done.

    Returns:
        The groups of at least two ids, the largest first. The ids of a group are ascending.

    >>> from metarep.index import build_index
    >>> index = build_index("exact", 2)
    >>> index.add([5, 7, 9], [[1.0, 0.0], [0.0, 1.0], [1.0, 0.01]])
    >>> near_duplicates(index, 0.99)
    [[5, 9]]
    """
    return _members(index.ids().numpy(), _near(index, threshold, batch, watch))


def duplicates(index: Index, paths: Sequence[Path], threshold: float, *, watch: Watch | None = None) -> list[Group]:
    """Finds groups of copies, and groups of look-alikes that are not all copies of each other.

    Args:
        index: an index of any kind.
        paths: the file of each id, in ascending order of ids. A missing file is compared by its vector alone.
        threshold: the smallest cosine of look-alikes, -1 to 1.
        watch: called with the number of vectors that are done.

    Returns:
        The groups of copies, and after them the groups of look-alikes; the largest of each kind first.

    >>> from metarep.index import build_index
    >>> index = build_index("exact", 2)
    >>> index.add([5, 7, 9], [[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]])
    >>> missing = [Path("a.jpg"), Path("b.jpg"), Path("c.jpg")]
    >>> duplicates(index, missing, 0.99)
    [Group(kind='look-alikes', ids=[5, 9])]
    """
    ids = index.ids()
    copies = find_copies(index.vectors(ids), hash_files(paths))
    alike = _near(index, threshold, 256, watch)
    copied = [Group("copies", group) for group in _members(ids.numpy(), copies)]
    copy_group = dict(zip(ids.tolist(), copies.of.tolist(), strict=True))
    groups = _members(ids.numpy(), alike)
    return copied + [Group("look-alikes", group) for group in groups if len({copy_group[i] for i in group}) > 1]


def hash_files(paths: Sequence[Path]) -> Hashes:
    """Returns the picture hashes of image files, shape ``(n, length)``. A file that cannot be read has zeros."""
    hashes = torch.zeros(len(paths), LENGTH, dtype=torch.int8)
    for start in range(0, len(paths), FILES):
        sources = [(path, shown(path)) for path in paths[start : start + FILES]]
        rows, images = [], []
        for row, pixels in enumerate(decode_all(sources, size=(SIDE, SIDE), channels=3, stretch=STRETCH), start):
            if not isinstance(pixels, DataError):
                rows.append(row)
                images.append(pixels)
        if rows:
            hashes[rows] = picture_hash(torch.from_numpy(np.stack(images)))
    return hashes


def _near(index: Index, threshold: float, batch: int, watch: Watch | None) -> Groups:
    """Returns the connected components of near pairs; see :func:`near_duplicates`."""
    ids = index.ids()
    if index.name == "exact" or len(ids) <= EXACT:
        return linked(index.vectors(ids), threshold, watch=watch)
    groups, known = Groups(len(ids)), ids.numpy()
    for start in range(0, len(ids), batch):
        part = ids[start : start + batch]
        scores, near = index.search(index.vectors(part), NEIGHBOURS)
        row, column = ((scores >= threshold - 1e-6) & (near >= 0)).nonzero(as_tuple=True)
        groups.join(start + row.numpy(), np.searchsorted(known, near[row, column].numpy()))
        if watch:
            watch(start + len(part))
    return groups


def _members(ids: np.ndarray, groups: Groups) -> list[list[int]]:
    """Returns the ids of each group of at least two, the largest group first."""
    order = np.argsort(groups.of, kind="stable")
    starts = np.flatnonzero(np.diff(groups.of[order], prepend=-1))
    parts = [ids[part].tolist() for part in np.split(order, starts[1:]) if len(part) > 1] if len(order) else []
    return sorted(parts, key=lambda group: (-len(group), group))
