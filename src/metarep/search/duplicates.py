"""Pictures that stand in an index twice: copies by what they look like, look-alikes by what an encoder says of them."""

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

EXACT = 300_000  # vectors: of more, an index that is not exact is asked for the nearest of each instead
NEIGHBOURS = 16
SIDE = 64  # pixels at which a file is looked at
FILES = 256  # looked at together

Watch = Callable[[int], None]


@dataclass(frozen=True)
class Group:
    """Images that belong together, as ids in ascending order, and why: copies, or only alike."""

    kind: Literal["copies", "look-alikes"]
    ids: list[int]


def near_duplicates(index: Index, threshold: float, *, batch: int = 256, watch: Watch | None = None) -> list[list[int]]:
    """Groups of two ids or more, the largest first, each in ascending order.

    Two vectors are near if their cosine is the threshold or more, and a group is whatever hangs together so: its ends
    may be farther apart. All pairs count, whatever the index; only of more than 300,000 vectors in an index that is
    not exact the 16 nearest of each are asked for, and a pair may be missed.

    Args:
        index: of any kind.
        threshold: cosine, -1 to 1.
        batch: vectors that are asked of the index at a time.
        watch: called with the number of vectors that are done.
    """
    return _members(index.ids().numpy(), _near(index, threshold, batch, watch))


def duplicates(index: Index, paths: Sequence[Path], threshold: float, *, watch: Watch | None = None) -> list[Group]:
    """Copies first, then look-alikes that are not all copies of each other; the largest first.

    Args:
        index: of any kind.
        paths: the file of each id, in ascending order of ids. A file that is gone is compared by its vector alone.
        threshold: cosine of look-alikes, -1 to 1.
        watch: called with the number of vectors that are done.
    """
    ids = index.ids()
    copies = find_copies(index.vectors(ids), hash_files(paths))
    alike = _near(index, threshold, 256, watch)
    found = [Group("copies", group) for group in _members(ids.numpy(), copies)]
    head = dict(zip(ids.tolist(), copies.of.tolist(), strict=True))
    groups = _members(ids.numpy(), alike)
    return found + [Group("look-alikes", group) for group in groups if len({head[each] for each in group}) > 1]


def hash_files(paths: Sequence[Path]) -> Hashes:
    """Hashes of image files; zeros for those that cannot be read."""
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
    ids = index.ids()
    if index.name == "exact" or len(ids) <= EXACT:
        return linked(index.vectors(ids), threshold, watch=watch)
    groups, known = Groups(len(ids)), ids.numpy()
    for start in range(0, len(ids), batch):
        part = ids[start : start + batch]
        scores, found = index.search(index.vectors(part), NEIGHBOURS)
        row, column = ((scores >= threshold - 1e-6) & (found >= 0)).nonzero(as_tuple=True)
        groups.join(start + row.numpy(), np.searchsorted(known, found[row, column].numpy()))
        if watch:
            watch(start + len(part))
    return groups


def _members(ids: np.ndarray, groups: Groups) -> list[list[int]]:
    """Ids of the groups of two or more."""
    order = np.argsort(groups.of, kind="stable")
    starts = np.flatnonzero(np.diff(groups.of[order], prepend=-1))
    parts = [ids[part].tolist() for part in np.split(order, starts[1:]) if len(part) > 1] if len(order) else []
    return sorted(parts, key=lambda group: (-len(group), group))
