"""Catalogue: which image an id of an index stands for."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from metarep.errors import MetarepError
from metarep.machine.files import replacing


@dataclass(frozen=True, slots=True)
class Item:
    """One image of an index.

    Args:
        id: in the index; never given to another image.
        path: of its file, absolute; bytes that are not UTF-8 as surrogates, as Python has them.
        size, time: of the file in bytes, and when it was last written in nanoseconds: what says that it has changed.
        digest: the first 16 hexadecimal digits of the SHA-256 of its bytes.
    """

    id: int
    path: str
    size: int
    time: int
    digest: str


class Catalogue:
    """A file of one JSON line an item, to which lines are only added.

    An item counts if the index holds its id. Lines are written before the vectors, so whatever the index holds has its
    line, even after a power cut; lines of vectors that were lost, or of removed ones, are passed over, and are left out
    when the file is next written anew.

    Args:
        path: the file; it may not be there yet.
        ids: what the index holds.

    Raises:
        MetarepError: an id of the index has no line.
    """

    def __init__(self, path: Path, ids: Iterable[int]) -> None:
        self.path, self.items, self.by_path = path, dict[int, Item](), dict[str, int]()
        self.next, self.lines, self.whole = 0, 0, 0  # the next id; lines and bytes of the file that are whole
        held = set(ids)
        for item in self._read():
            self.next, self.lines = max(self.next, item.id + 1), self.lines + 1
            if item.id in held:
                self._take(item)
        if len(self.items) < len(held):
            lost = next(iter(held - self.items.keys()))
            raise MetarepError(f"{path} does not say which image {lost} is: it is damaged, or of another index")

    def __len__(self) -> int:
        return len(self.items)

    def append(self, items: list[Item]) -> None:
        """Write lines; they are in the file when this returns."""
        content = "".join(json.dumps(asdict(item)) + "\n" for item in items).encode("ascii")
        with self.path.open("rb+" if self.path.exists() else "wb") as file:
            file.truncate(self.whole)  # a line that was cut short: what comes next must not stand behind it
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
        """Pass over these from now on; their lines stay until :meth:`sweep`."""
        for each in ids:
            item = self.items.pop(each)
            if self.by_path.get(item.path) == each:
                del self.by_path[item.path]

    def sweep(self) -> None:
        """Write the file anew if most of its lines no longer count; call it when the index has been saved."""
        if self.lines <= 2 * len(self.items) + 1000:
            return
        with replacing(self.path) as partial, partial.open("wb") as file:
            file.writelines(json.dumps(asdict(item)).encode("ascii") + b"\n" for item in self.items.values())
            self.whole = file.tell()
        self.lines = len(self.items)

    def below(self, place: Path) -> list[int]:
        """Ids of the image with this path, or of those below this folder."""
        here = str(place)
        if here in self.by_path:
            return [self.by_path[here]]
        return [each for path, each in self.by_path.items() if path.startswith(here.rstrip("/\\") + os.sep)]

    def _take(self, item: Item) -> None:
        self.items[item.id] = item
        self.by_path[item.path] = item.id

    def _read(self) -> Iterable[Item]:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):  # its writer was stopped, or is writing now
                    return
                self.whole += len(line)
                try:
                    yield Item(**json.loads(line))
                except (ValueError, TypeError) as error:
                    raise MetarepError(f"{self.path} is damaged: {line[:60]!r} is not an item") from error


def digest_of(file: Path) -> str:
    """Names what a file holds."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]


def absolute(path: Path) -> Path:
    """Where a file is, from the root; links stay as they are named."""
    return Path(os.path.abspath(path.expanduser()))
