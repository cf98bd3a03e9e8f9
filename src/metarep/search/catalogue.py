"""Catalogue: the image file of each id of an index."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from metarep.errors import MetarepError
from metarep.machine.digests import sha256_of
from metarep.machine.files import replacing
from metarep.machine.untrusted import parse_json

LONGEST = 1 << 18  # bytes of a line; the longest path of any system takes less, with every character escaped


@dataclass(frozen=True, slots=True)
class Item:
    """One image of an index.

    Args:
        id: its id in the index, which no other image ever gets.
        path: the absolute path of its file. Bytes that are not UTF-8 are surrogates, as in Python.
        size: the size of the file in bytes.
        time: the time of the last write in nanoseconds. A file has changed if its size or time has changed.
        digest: the first 16 hexadecimal digits of the SHA-256 of the file.
    """

    id: int
    path: str
    size: int
    time: int
    digest: str


class Catalogue:
    """An append-only file with one JSON line for each image of an index.

    An item counts if the index holds its id. Lines are written before the vectors, so every vector of the index has its
    line, even after a power cut. Lines of lost or removed vectors are ignored. :meth:`sweep` removes them when it
    writes the file anew.

    Args:
        path: the file, which need not exist yet.
        ids: the ids that the index holds.

    Attributes:
        items: the items by id.
        by_path: the ids by path.
        next: the next id.

    Raises:
        MetarepError: an id of the index has no line, or the file is damaged.
    """

    def __init__(self, path: Path, ids: Iterable[int]) -> None:
        self.path, self.items, self.by_path = path, dict[int, Item](), dict[str, int]()
        self.next, self.lines, self.whole = 0, 0, 0  # the next id; complete lines of the file, and their bytes
        held = set(ids)
        for item in self._read():
            self.next, self.lines = max(self.next, item.id + 1), self.lines + 1
            if item.id in held:
                self._take(item)
        if len(self.items) < len(held):
            lost = next(iter(held - self.items.keys()))
            raise MetarepError(
                f"{path} does not say which image {lost} is: it is damaged, or of another index; build it anew"
            )

    def __len__(self) -> int:
        return len(self.items)

    def append(self, items: list[Item]) -> None:
        """Adds items. Their lines are on disk when this returns."""
        content = b"".join(map(_line, items))
        with self.path.open("rb+" if self.path.exists() else "wb") as file:
            file.truncate(self.whole)  # removes a line that was cut short
            file.seek(self.whole)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self.whole += len(content)
        self.lines += len(items)
        for item in items:
            self._take(item)
            self.next = max(self.next, item.id + 1)

    def forget(self, ids: Iterable[int]) -> None:
        """Removes the items with these ids. Their lines stay in the file until :meth:`sweep`."""
        for each in ids:
            item = self.items.pop(each)
            if self.by_path.get(item.path) == each:
                del self.by_path[item.path]

    def sweep(self) -> None:
        """Writes the file anew if most of its lines no longer count. Call it after the index has been saved."""
        if self.lines <= 2 * len(self.items) + 1000:
            return
        with replacing(self.path) as partial, partial.open("wb") as file:
            file.writelines(map(_line, self.items.values()))
            self.whole = file.tell()
        self.lines = len(self.items)

    def below(self, path: Path) -> list[int]:
        """Returns the id of the image with this path, or the ids of all images below this folder."""
        if str(path) in self.by_path:
            return [self.by_path[str(path)]]
        folder = str(path).rstrip("/\\") + os.sep
        return [number for file, number in self.by_path.items() if file.startswith(folder)]

    def _take(self, item: Item) -> None:
        self.items[item.id] = item
        self.by_path[item.path] = item.id

    def _read(self) -> Iterable[Item]:
        """Yields the items of all complete lines."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            while line := file.readline(LONGEST):
                if not line.endswith(b"\n") and len(line) < LONGEST:  # its writer was stopped, or is still writing
                    return
                self.whole += len(line)
                try:
                    yield _item(line)
                except (ValueError, TypeError) as error:
                    raise MetarepError(
                        f"{self.path} is damaged: {line[:60]!r} is not an item; build the index anew"
                    ) from error


def _line(item: Item) -> bytes:
    """The line of an item. Without ``asdict``, which copies each value and would double the time."""
    fields = {"id": item.id, "path": item.path, "size": item.size, "time": item.time, "digest": item.digest}
    return json.dumps(fields).encode("ascii") + b"\n"


def _item(line: bytes) -> Item:
    """The item in a line. Raises a ValueError or a TypeError if the line is not an item."""
    if len(line) == LONGEST:
        raise ValueError("it is too long")
    item = Item(**parse_json(line))
    whole = all(type(each) is int and 0 <= each < 1 << 63 for each in (item.id, item.size, abs(item.time)))
    if not whole or not isinstance(item.path, str) or "\0" in item.path or not isinstance(item.digest, str):
        raise ValueError("a value is of another type")
    return item


def digest_of(file: Path) -> str:
    """Returns the first 16 hexadecimal digits of the SHA-256 of a file."""
    return sha256_of(file)[:16]


def absolute(path: Path) -> Path:
    """Returns the absolute path of a file. Symbolic links are not resolved."""
    return Path(os.path.abspath(path.expanduser()))
