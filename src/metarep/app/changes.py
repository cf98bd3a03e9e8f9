"""Changes that can be undone: the last ones, in the memory of one process or in files that several workers share."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from metarep.errors import MetarepError
from metarep.machine.files import read_tensors, write_tensors
from metarep.model.gallery import Gallery

MOST_CHANGES = 20
MOST_BYTES = 64 << 20  # of removed pictures; the last change is kept even if it alone has more
PICTURE = "picture."  # prefix of the tensors that hold pictures


@dataclass(frozen=True)
class Change:
    """The images that a change removed or moved, as they were before it.

    Args:
        part: a gallery of these images alone, with their classes before the change.
        names: the names of all classes before the change, in their order.
        pictures: the PNG file of each removed image, by the image's number.
    """

    part: Gallery
    names: tuple[str, ...]
    pictures: dict[int, bytes]

    @property
    def bytes(self) -> int:
        """The size of the removed pictures."""
        return sum(map(len, self.pictures.values()))


class Changes(Protocol):
    """The last changes by number: at most ``MOST_CHANGES``, with pictures of at most ``MOST_BYTES``."""

    def put(self, number: int, change: Change) -> None:
        """Keep a change, and drop the oldest ones that are too many."""
        ...

    def get(self, number: int) -> Change | None:
        """Return a change, or None if it is not kept."""
        ...

    def drop(self, number: int) -> None:
        """Drop a change, if it is kept."""
        ...


class ChangesInMemory:
    """The last changes of a server that is one process; see :class:`Changes`."""

    def __init__(self) -> None:
        self._changes: dict[int, Change] = {}
        self._lock = threading.Lock()

    def put(self, number: int, change: Change) -> None:
        with self._lock:
            self._changes[number] = change
            for old in _too_many((number, change.bytes) for number, change in self._changes.items()):
                del self._changes[old]

    def get(self, number: int) -> Change | None:
        with self._lock:
            return self._changes.get(number)

    def drop(self, number: int) -> None:
        with self._lock:
            self._changes.pop(number, None)


class ChangeFiles:
    """The last changes of a server of several workers, each in a file, so that any worker can undo it.

    Args:
        folder: the folder of the files; it belongs to one server alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, number: int, change: Change) -> None:
        part = change.part
        tensors = {"rows": part.rows, "classes": part.classes, "ids": part.ids, "hashes": part.hashed}
        for image, content in change.pictures.items():
            tensors[f"{PICTURE}{image}"] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        header = {"items": part.items, "own": part.names, "next_id": part.next_id, "names": change.names}
        header["groups"] = part.groups
        # Without space on the disk it cannot be undone; but the change itself is done, so the request has succeeded.
        with suppress(OSError, MetarepError):
            write_tensors(self._path(number), tensors, header)
            for old in _too_many(self._sizes()):
                self.drop(old)

    def get(self, number: int) -> Change | None:
        try:
            tensors, header = read_tensors(self._path(number))
        except (OSError, MetarepError):
            return None
        rows, classes, ids, hashes = (tensors.pop(name) for name in ("rows", "classes", "ids", "hashes"))
        items, own, groups = (tuple(header[name]) for name in ("items", "own", "groups"))
        part = Gallery(rows, classes, ids, items, own, header["next_id"], hashes, groups)
        pictures = {int(name.removeprefix(PICTURE)): content.numpy().tobytes() for name, content in tensors.items()}
        return Change(part, tuple(header["names"]), pictures)

    def drop(self, number: int) -> None:
        self._path(number).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.change"

    def _sizes(self) -> list[tuple[int, int]]:
        """Return the number and the size of each file, the oldest first. Another worker may drop files meanwhile."""
        files = []
        for path in self.folder.glob("*.change"):
            with suppress(FileNotFoundError):
                status = path.stat()
                files.append((status.st_mtime_ns, int(path.stem), status.st_size))
        return [(number, size) for _, number, size in sorted(files)]


def _too_many(changes: Iterable[tuple[int, int]]) -> Iterator[int]:
    """Yield the changes to drop, given the number and the bytes of each change, the oldest first."""
    kept = list(changes)
    total = sum(size for _, size in kept)
    while len(kept) > 1 and (len(kept) > MOST_CHANGES or total > MOST_BYTES):
        number, size = kept.pop(0)
        total -= size
        yield number
