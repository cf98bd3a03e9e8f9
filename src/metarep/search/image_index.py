"""ImageIndex: a folder on disk that knows the images of other folders by what they look like."""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from metarep.data.reading.depth import Depth, read_depth
from metarep.data.reading.folder_tree import image_files, shown
from metarep.encoders import Precision
from metarep.errors import Advice, Call, DataError, MetarepError, Slot
from metarep.index import Index, build_index
from metarep.machine.files import locked
from metarep.search.beginning import begin, busy, is_index
from metarep.search.catalogue import Catalogue, Item, absolute, digest_of
from metarep.search.embedder import Embedder
from metarep.weights.named import Representation, load_representation

BATCH = 256
DEPTH = "depth.json"
SAVE_EVERY = 5.0  # seconds of work that may be lost, or twenty times as long as a save takes if that is more

Watch = Callable[[dict[str, Any]], None]


@dataclass
class Added:
    """What came of adding: numbers of images, and what could not be read."""

    new: int = 0
    changed: int = 0
    known: int = 0
    bad: list[str] | None = None


@dataclass(frozen=True)
class Hit:
    """An image that was found: its path and its cosine to the query."""

    path: str
    score: float


class ImageIndex:
    """Three files: ``index.safetensors`` (vectors by id), ``items.jsonl`` (images by id), ``encoder.safetensors``; and
    ``depth.json``, black and white of files of more than 8 bits, once there were any.

    It works alone, wherever the encoder came from, and takes vectors of no other. Images themselves stay where they
    are; an image whose file changes is read again by the next :meth:`add`. Whatever stops a program, the folder holds
    what was last saved, and adding the same places again goes on from there.

    Args:
        path: the folder.
        device: to embed and search on.
        precision: of the encoder.

    Raises:
        MetarepError: no index there, or a damaged one.
    """

    def __init__(self, path: Path, *, device: torch.device | str = "cpu", precision: Precision = "float32") -> None:
        self.path = Path(path)
        if not is_index(self.path):
            build = Call("ImageIndex.create", "index build", path, Slot("FOLDER"), encoder=Slot("RUN"))
            raise MetarepError(f"{path} holds no index", advice=Advice("make one with {build}", build=build))
        self.embedder = Embedder(load_representation(self.path / "encoder.safetensors"), device, precision)
        self.embedder.depth = self.embedder.depth | read_depth(self.path / DEPTH)
        self.saved = (time.monotonic(), 0.0)  # when, and how long it took
        self._read()

    @classmethod
    def create(
        cls,
        path: Path,
        representation: Representation,
        backend: str = "exact",
        settings: Mapping[str, Any] | None = None,
        *,
        device: torch.device | str = "cpu",
        precision: Precision = "float32",
    ) -> "ImageIndex":
        """An empty one in a folder that holds none, or the one that is there if it was made the same way.

        Args:
            path: made if need be.
            representation: whose eyes to look with; it is copied, a module of one's own as an ONNX graph.
            backend: a name of ``INDEXES``.
            settings: the backend's own.
            device, precision: as above.

        Raises:
            MetarepError: the folder holds an index of another encoder, backend or settings, or something else.
        """
        representation = representation.portable()
        embedder = Embedder(representation, device, precision)
        empty = build_index(backend, embedder.dim, embedder.space, **(settings or {}))
        try:
            if not is_index(Path(path)):
                begin(Path(path), representation, empty)
        finally:
            empty.close()
        found = cls(path, device=device, precision=precision)
        for what, was, now in (
            ("the encoder", found.embedder.space, embedder.space),
            ("the backend", found.index.name, empty.name),
            ("the settings", found.index.chosen_settings(), empty.chosen_settings()),
        ):
            if was != now:
                found.close()
                raise MetarepError(f"{path} holds an index with {what} {was}, not {now}; choose another folder")
        return found

    def __len__(self) -> int:
        return len(self.index)

    def close(self) -> None:
        """Let go of a server."""
        self.index.close()

    def __enter__(self) -> "ImageIndex":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(
        self,
        places: Iterable[Path],
        *,
        skip_bad: bool = False,
        depth: Depth | str | None = None,
        watch: Watch | None = None,
    ) -> Added:
        """Embed the images of these files and folders that are new or have changed.

        Args:
            places: folders are searched to their ends.
            skip_bad: leave out what cannot be read.
            depth: black and white of these files, if of more than 8 bits; by default as those before them, or else what
                all of them suggest, which is remembered.
            watch: called after each batch with ``done``, ``total`` and ``embedded``.

        Raises:
            DataError: an image that cannot be read; what was embedded before stays.
        """
        with self.locked():
            files = list(dict.fromkeys(absolute(file) for place in places for file in image_files(place)))
            done, result = 0, Added(bad=[])
            fresh = [file for file in files if str(file) not in self.items.by_path]
            how = self.embedder.learn_depth(fresh, Depth.of(depth), self.path / DEPTH)
            for batch in _batches(files):
                self._add_batch(batch, result, skip_bad=skip_bad, depth=how)
                done += len(batch)
                embedded = result.new + result.changed
                if watch:
                    watch({"done": done, "total": len(files), "embedded": embedded})
                if time.monotonic() - self.saved[0] > max(SAVE_EVERY, 20 * self.saved[1]):
                    self.save()
            self.save()
        return result

    def remove(self, places: Iterable[Path], *, missing: bool = False) -> int:
        """Forget images, by file or by folder; with ``missing`` also all whose files are gone. Returns how many.

        Raises:
            MetarepError: a place with no image of this index; nothing is then removed.
        """
        with self.locked():
            gone: set[int] = set()
            for place in places:
                found = self.items.below(absolute(place))
                if not found:
                    raise MetarepError(f"the index holds no image {shown(place)!r} and none below it")
                gone.update(found)
            if missing:
                gone.update(each for each, item in self.items.items.items() if not os.path.exists(item.path))
            self._forget(sorted(gone))
            self.save()
        return len(gone)

    def search(
        self, images: Sequence[Path], k: int, below: Path | None = None, depth: Depth | str | None = None
    ) -> list[list[Hit]]:
        """The nearest images of each image, best first.

        Args:
            images: files, which need not be in the index.
            k: how many.
            below: only images below this folder.
            depth: black and white of these images, if of more than 8 bits and not as in the index.

        Raises:
            DataError: an image that cannot be read.
        """
        rows, errors = self.embedder(images, self.embedder.depth | Depth.of(depth))
        if bad := [error for error in errors if error]:
            raise type(bad[0])(bad[0].message) from bad[0]  # a query is not left out, so its advice would not help
        allowed = None if below is None else self.items.below(absolute(below))
        if allowed is not None and not allowed:
            raise MetarepError(f"the index holds no image below {shown(below or '')!r}")
        scores, ids = self.index.search(rows, min(k, max(1, len(self))), allowed, space=self.embedder.space)
        return [
            [Hit(self.items.items[i].path, score) for score, i in zip(*row, strict=True) if i >= 0]
            for row in zip(scores.tolist(), ids.tolist(), strict=True)
        ]

    def save(self) -> None:
        """Write the index; its items are written already."""
        started = time.monotonic()
        self.index.save(self.path / "index.safetensors")
        self.items.sweep()
        self.saved, self.stamp = (time.monotonic(), time.monotonic() - started), self._stamp()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One writer at a time; what another has written since this index was opened is read first.

        Raises:
            MetarepError: another process is writing.
        """
        with locked(self.path / ".lock", busy(self.path)):
            if self._stamp() != self.stamp:
                self.index.close()
                self._read()
            yield

    def _read(self) -> None:
        """Read what the folder holds; once more, where a writer has replaced a file between the two."""
        while True:
            self.stamp = self._stamp()  # first: what is written from here on is seen to be other
            self.index = Index.load(self.path / "index.safetensors")
            self.index.check_space(self.embedder.space)
            try:
                self.items = Catalogue(self.path / "items.jsonl", self.index.ids().tolist())
                return
            except MetarepError:
                self.index.close()
                if self._stamp() == self.stamp:
                    raise

    def _stamp(self) -> tuple[int, int, int]:
        """Which state of the files this is."""
        status, items = (self.path / "index.safetensors").stat(), self.path / "items.jsonl"
        return status.st_ino, status.st_mtime_ns, items.stat().st_size if items.exists() else 0

    def _add_batch(self, batch: list[Path], result: Added, *, skip_bad: bool, depth: Depth) -> None:
        todo = [(file, status) for file in batch if (status := self._changed(file, result)) is not None]
        if not todo:
            return
        rows, errors = self.embedder([file for file, _ in todo], depth)
        result.bad = (result.bad or []) + [error.message for error in errors if error]
        unreadable = [str(file) for (file, _), error in zip(todo, errors, strict=True) if error]
        self._forget([self.items.by_path[path] for path in unreadable if path in self.items.by_path])  # what it was
        kept = [each for each, error in zip(todo, errors, strict=True) if error is None]
        fresh = [
            Item(self.items.next + row, str(file), status.st_size, status.st_mtime_ns, digest_of(file))
            for row, (file, status) in enumerate(kept)
        ]
        stale = [self.items.by_path[item.path] for item in fresh if item.path in self.items.by_path]
        self._forget(stale)
        self.items.append(fresh)
        self.index.add([item.id for item in fresh], rows, space=self.embedder.space)
        result.changed += len(stale)
        result.new += len(fresh) - len(stale)
        if result.bad and not skip_bad:
            self.save()
            first = next(error for error in errors if error)
            raise DataError(f"{first.message}; {len(self):,} images are in the index, and stay", advice=first.advice)

    def _changed(self, file: Path, result: Added) -> os.stat_result | None:
        """The state of a file that is new or not as it was; None for one that is known."""
        try:
            status = file.stat()
        except OSError as error:
            raise DataError(f"{shown(file)} cannot be read ({error.strerror})") from error
        known = self.items.by_path.get(str(file))
        if known is not None:
            item = self.items.items[known]
            if (item.size, item.time) == (status.st_size, status.st_mtime_ns):
                result.known += 1
                return None
        return status

    def _forget(self, ids: list[int]) -> None:
        self.index.remove(ids)
        self.items.forget(ids)


def _batches(files: list[Path]) -> Iterator[list[Path]]:
    rest = iter(files)
    while batch := list(islice(rest, BATCH)):
        yield batch
