"""Decode a folder of images into shards, with what a data set must know of them: counts, keys, and copies."""

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch

from metarep.data.banks.decoded_shard import FILE, HASH, PIXELS, DecodedShard, forget, joined
from metarep.data.banks.manifest import Manifest
from metarep.data.banks.mapped import MappedImages
from metarep.data.banks.workers import decode_files
from metarep.data.copies.near_copies import near_copies
from metarep.data.copies.sketches import crossing_copies
from metarep.data.reading.depth import Depth, DepthWarning
from metarep.data.reading.depth_survey import notice
from metarep.data.reading.file_list import FileList
from metarep.data.reading.folder_tree import FolderTree, shown
from metarep.errors import DataError

EXACT = 20_000  # images up to which every pair of pictures is compared: 3 s on a core, and four times that for double
AT_ONCE = 4096  # descriptions that are read at once


def build(part: Path, tree: FolderTree, size: int, depth: Depth) -> Manifest:
    """Decode all images of a folder, sorted by class.

    Args:
        part: the folder for the shards. What a run that was killed left there is kept.
        tree: the classes and their files.
        size: height and width of the images in pixels.
        depth: ranges of deep pictures that are known already.

    Returns:
        The shards, and facts: the number of images and the key of each class, files that cannot be read, the depth and
        what it assumed, and groups of files that show the same picture in more than one class.

    Raises:
        DataError: no image can be read.
    """
    files = FileList.join(entry.files for entry in tree.classes)
    class_of = np.repeat(np.arange(len(tree.classes)), [len(entry.files) for entry in tree.classes])
    sources = _Sources(tree.root, files)
    with warnings.catch_warnings(record=True) as depth_warnings:  # kept in the cache and given at every use
        warnings.simplefilter("always", DepthWarning)
        depth = notice(sources, depth)
    shards = decode_files(part, sources, (size, size), depth, described=True)
    skipped, readable = _skipped(shards, len(files))
    if not readable.any():
        raise DataError(f"{tree.root} has no readable image: {skipped[0][1]}")
    file_of = np.flatnonzero(readable)  # of each image
    descriptions = joined(shards)
    counts = np.bincount(class_of[file_of], minlength=len(tree.classes))
    facts = {
        "counts": counts.tolist(),
        "keys": _keys(descriptions, counts),
        "skipped": [(shown(files[row]), reason) for row, reason in skipped],
        "depth": depth.as_dict(),
        "assumed": [each.message.message for each in depth_warnings if isinstance(each.message, DepthWarning)],
        "duplicates": [
            [shown(files[file_of[image]]) for image in group] for group in _copies(descriptions, class_of[file_of])
        ],
    }
    forget(part, len(shards))
    return Manifest((size, size), tuple(each.shard for each in shards if each.shard), facts)


class _Sources(Sequence[tuple[Path, str]]):
    """The path of each file and its name in messages, which are built only when they are accessed."""

    def __init__(self, root: Path, files: FileList) -> None:
        self.root, self.files = root, files

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, index: int) -> tuple[Path, str]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[Path, str]]: ...
    def __getitem__(self, index: int | slice) -> tuple[Path, str] | list[tuple[Path, str]]:
        if isinstance(index, slice):
            return [(self.root / file, shown(file)) for file in self.files[index]]
        return self.root / self.files[index], shown(self.files[index])


def _skipped(shards: Sequence[DecodedShard], files: int) -> tuple[list[tuple[int, str]], np.ndarray]:
    """The rows of the files that could not be decoded, with the reasons; and a mask of the files that could."""
    skipped, readable, first = [], np.ones(files, bool), 0
    for each in shards:
        for position, reason in each.skipped:
            skipped.append((first + position, reason))
            readable[first + position] = False
        first += len(each.skipped) + (each.shard.rows if each.shard else 0)
    return skipped, readable


def _keys(descriptions: MappedImages, counts: np.ndarray) -> list[str]:
    """The key of each class: a digest of the content of its files, in any order."""
    keys, first = [], 0
    for count in counts.tolist():
        rows = descriptions.pixels(torch.arange(first, first + count))[:, 0, 0, FILE].numpy()
        content = b"".join(sorted(row.tobytes() for row in rows))
        keys.append(f"folder:{hashlib.sha256(content).hexdigest()[:16]}")
        first += count
    return keys


def _copies(descriptions: MappedImages, classes: np.ndarray) -> list[list[int]]:
    """Groups of images that show the same picture in more than one class: first equal pixels, then near copies."""
    parts = [some[:, 0, 0, PIXELS].contiguous().numpy().view("<u8") for some in descriptions.chunks(AT_ONCE)]
    _, same = np.unique(np.concatenate(parts), axis=0, return_inverse=True)
    equal = _across(same.reshape(-1), classes)

    def hashes(rows: np.ndarray) -> torch.Tensor:
        return descriptions.pixels(torch.from_numpy(rows))[:, 0, 0, HASH].view(torch.int8)

    everything = np.arange(len(classes))
    near = near_copies(None, hashes(everything)).numpy() if len(classes) <= EXACT else crossing_copies(hashes, classes)
    reported = {image for group in equal for image in group}
    return equal + [group for group in _across(near, classes) if not set(group) <= reported]


def _across(groups: np.ndarray, classes: np.ndarray) -> list[list[int]]:
    """The members of each group that has images of more than one class, in the order of their first images."""
    order = np.lexsort((np.arange(len(groups)), groups))
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    low, high = (reduce.reduceat(classes[order], starts) for reduce in (np.minimum, np.maximum))
    ends = np.append(starts[1:], len(order))
    crossing = np.flatnonzero(low < high)
    return sorted(order[starts[group] : ends[group]].tolist() for group in crossing)
