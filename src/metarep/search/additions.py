"""Additions to an index of images: which files are new or have changed, and how many of each kind there were."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from metarep.data.reading.folder_tree import shown
from metarep.errors import DataError
from metarep.machine.ranks import ranks
from metarep.search.catalogue import Catalogue

BATCH = 256  # files that a process embeds between two reports of progress


@dataclass
class Added:
    """The result of :meth:`ImageIndex.add`: numbers of images, and the messages of those that could not be read."""

    new: int = 0
    changed: int = 0
    known: int = 0
    bad: list[str] | None = None


def batches(files: list[Path]) -> Iterator[list[Path]]:
    """Yield the files in batches of at most ``BATCH`` for each process, so that all processes have work."""
    rest = iter(files)
    while batch := list(islice(rest, BATCH * ranks())):
        yield batch


def changed_status(items: Catalogue, file: Path, result: Added) -> os.stat_result | None:
    """Returns the status of a file that is new or has changed; None for one that is known, which is counted.

    Args:
        items: the files that the index knows, with their sizes and times.
        file: an absolute path.
        result: its count of known files is raised by one if the file is known.

    Raises:
        DataError: the status of the file cannot be read.
    """
    try:
        status = file.stat()
    except OSError as error:
        raise DataError(f"{shown(file)} cannot be read ({error.strerror}); check the file") from error
    known = items.by_path.get(str(file))
    if known is not None:
        item = items.items[known]
        if (item.size, item.time) == (status.st_size, status.st_mtime_ns):
            result.known += 1
            return None
    return status
