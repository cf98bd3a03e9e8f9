"""ImageIndex: a folder on disk that finds images of other folders by a query image."""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from metarep.data.reading.depth import Depth, read_depth
from metarep.data.reading.folder_tree import image_files, shown
from metarep.encoders import Precision
from metarep.errors import Advice, Call, DataError, MetarepError, Slot
from metarep.index import Index, build_index
from metarep.machine.files import locked
from metarep.machine.old_names import renamed_argument
from metarep.search.additions import Added, batches, changed_status
from metarep.search.beginning import begin, busy, is_index
from metarep.search.catalogue import Catalogue, Item, absolute, digest_of
from metarep.search.embedder import Embedder
from metarep.weights.named import Representation, load_representation

DEPTH = "depth.json"
SAVE_EVERY = 5.0  # seconds between two saves, or 20 times the duration of a save if that is longer

Watch = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Hit:
    """One result of a search: the path of an image, and its cosine to the query, -1 to 1.

    >>> hits = [Hit("cups/3.png", 0.91), Hit("plates/7.png", 0.34)]
    >>> [hit.path for hit in hits if hit.score > 0.5]
    ['cups/3.png']
    """

    path: str
    score: float


class ImageIndex:
    """A folder that stores the vectors of images, so that they can be searched by image.

    It holds ``index.safetensors`` (vectors by id), ``items.jsonl`` (image files by id), ``encoder.safetensors``, and
    ``depth.json`` (black and white of images of more than 8 bits) once there is such an image.

    It refuses vectors of any other encoder. Images are not copied. If the file of an image changes, the next
    :meth:`add` embeds it again. If a program is stopped, the folder holds what was last saved, and adding the same
    paths again continues from there.

    Args:
        path, device, precision: the folder, the device that embeds and searches, and the precision of the encoder.

    Raises:
        MetarepError: the folder does not hold an index, or the index is damaged.

    >>> import tempfile
    >>> from PIL import Image
    >>> from metarep import Preprocess, Representation, build_encoder
    >>> encoder = build_encoder("conv4", Preprocess((16, 16), 1, (0.0,), (1.0,)), width=4)
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     for name, box in (("row.png", (0, 4, 16, 8)), ("column.png", (4, 0, 8, 16))):
    ...         image = Image.new("L", (16, 16))
    ...         image.paste(255, box)
    ...         image.save(Path(parent) / name)
    ...     index = ImageIndex.create(Path(parent) / "small.index", Representation(encoder, "small"))
    ...     added = index.add([Path(parent) / "row.png", Path(parent) / "column.png"])
    ...     hits = index.search([Path(parent) / "row.png"], k=1)
    >>> added.new, Path(hits[0][0].path).name, round(hits[0][0].score, 3)
    (2, 'row.png', 1.0)
    """

    def __init__(self, path: Path, *, device: torch.device | str = "cpu", precision: Precision = "float32") -> None:
        self.path = Path(path)
        if not is_index(self.path):
            build = Call(
                "ImageIndex.create", "index build", Slot("INDEX") if self.path.exists() else path, Slot("FOLDER")
            )
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
        """Creates an empty index, or opens the one in the folder if it has the same encoder, backend and settings.

        Args:
            path: the folder; it is made if it does not exist.
            representation: the encoder; a copy is stored. A module of your own is stored as an ONNX graph.
            backend, settings: the kind of vector index, a name of ``INDEXES``, and its keyword arguments.
            device, precision: as for the class.

        Raises:
            MetarepError: the folder holds other files, or an index of another encoder, backend or settings.
        """
        representation = representation.portable()
        embedder = Embedder(representation, device, precision)
        empty = build_index(backend, embedder.dim, embedder.space, **(settings or {}))
        try:
            if not is_index(Path(path)):
                begin(Path(path), representation, empty)
        finally:
            empty.close()
        opened = cls(path, device=device, precision=precision)
        for what, was, now in (
            ("the encoder", opened.embedder.space, embedder.space),
            ("the backend", opened.index.name, empty.name),
            ("the settings", opened.index.chosen_settings(), empty.chosen_settings()),
        ):
            if was != now:
                opened.close()
                raise MetarepError(f"{path} holds an index with {what} {was}, not {now}; choose another folder")
        return opened

    def __len__(self) -> int:
        return len(self.index)

    def close(self) -> None:
        """Closes the connection if the vectors are on a server."""
        self.index.close()

    def __enter__(self) -> "ImageIndex":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @renamed_argument("places", "paths")
    def add(
        self,
        paths: Iterable[Path],
        *,
        skip_bad: bool = False,
        depth: Depth | str | None = None,
        watch: Watch | None = None,
    ) -> Added:
        """Embeds the images of these files and folders that are new or have changed.

        Args:
            paths: files and folders. A folder is searched with all its subfolders.
            skip_bad: whether to leave out images that cannot be read.
            depth: black and white of files of more than 8 bits; by default those of the index, or else estimated.
            watch: called after each batch with the numbers of files ``done``, ``total`` and ``embedded``.

        Raises:
            DataError: an image cannot be read. What was embedded before stays in the index.
        """
        with self.locked():
            files = list(dict.fromkeys(absolute(file) for path in paths for file in image_files(path)))
            done, result = 0, Added(bad=[])
            fresh = [file for file in files if str(file) not in self.items.by_path]
            used_depth = self.embedder.learn_depth(fresh, Depth.of(depth), self.path / DEPTH)
            for batch in batches(files):
                self._add_batch(batch, result, skip_bad=skip_bad, depth=used_depth)
                done += len(batch)
                embedded = result.new + result.changed
                if watch:
                    watch({"done": done, "total": len(files), "embedded": embedded})
                if time.monotonic() - self.saved[0] > max(SAVE_EVERY, 20 * self.saved[1]):
                    self.save()
            self.save()
        return result

    @renamed_argument("places", "paths")
    def remove(self, paths: Iterable[Path], *, missing: bool = False) -> int:
        """Removes images from the index, and returns how many.

        Args:
            paths, missing: files and folders; and whether to remove all images whose files no longer exist.

        Raises:
            MetarepError: a path has no image in the index. Nothing is removed then.
        """
        with self.locked():
            gone: set[int] = set()
            for path in paths:
                ids = self.items.below(absolute(path))
                if not ids:
                    raise MetarepError(f"the index holds no image {shown(path)!r} and none below it; check the path")
                gone.update(ids)
            if missing:
                gone.update(each for each, item in self.items.items.items() if not os.path.exists(item.path))
            self._forget(sorted(gone))
            self.save()
        return len(gone)

    def search(
        self, images: Sequence[Path], k: int, below: Path | None = None, depth: Depth | str | None = None
    ) -> list[list[Hit]]:
        """Returns for each query image at most ``k`` hits, the most similar first.

        Args:
            images: the files of the queries, which need not be in the index.
            k: the number of results for each query.
            below: a folder; if it is given, only images below it are results.
            depth: black and white of queries of more than 8 bits; by default those of the index.

        Raises:
            MetarepError: a query cannot be read, or the index holds no image below the folder.
        """
        rows, errors = self.embedder(images, self.embedder.depth | Depth.of(depth))
        if bad := [error for error in errors if error]:
            raise type(bad[0])(bad[0].message) from bad[0]  # a query is not left out, so its advice would not help
        allowed = None if below is None else self.items.below(absolute(below))
        if allowed is not None and not allowed:
            raise MetarepError(
                f"the index holds no image below {shown(below or '')!r}; check the path, or add the folder first"
            )
        scores, ids = self.index.search(rows, min(k, max(1, len(self))), allowed, space=self.embedder.space)
        return [
            [Hit(self.items.items[i].path, score) for score, i in zip(*row, strict=True) if i >= 0]
            for row in zip(scores.tolist(), ids.tolist(), strict=True)
        ]

    def save(self) -> None:
        """Saves the vectors. The catalogue has been written already by :meth:`add`."""
        started = time.monotonic()
        self.index.save(self.path / "index.safetensors")
        self.items.sweep()
        self.saved, self.stamp = (time.monotonic(), time.monotonic() - started), self._stamp()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder for one writer. What another process has written since the last read is read first.

        Raises:
            MetarepError: another process is writing.
        """
        with locked(self.path / ".lock", busy(self.path)):
            if self._stamp() != self.stamp:
                self.index.close()
                self._read()
            yield

    def _read(self) -> None:
        """Reads vectors and catalogue, and starts again if a writer has replaced a file in between."""
        while True:
            self.stamp = self._stamp()  # taken first, so that any later write changes it
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
        """Returns the version of the files: inode and time of the vectors, and size of the catalogue."""
        status, items = (self.path / "index.safetensors").stat(), self.path / "items.jsonl"
        return status.st_ino, status.st_mtime_ns, items.stat().st_size if items.exists() else 0

    def _add_batch(self, batch: list[Path], result: Added, *, skip_bad: bool, depth: Depth) -> None:
        """Embeds the new and changed files of one batch, and counts them in ``result``."""
        todo = [(file, status) for file in batch if (status := changed_status(self.items, file, result)) is not None]
        if not todo:
            return
        rows, errors = self.embedder([file for file, _ in todo], depth)
        result.bad = (result.bad or []) + [error.message for error in errors if error]
        unreadable = [str(file) for (file, _), error in zip(todo, errors, strict=True) if error]
        self._forget([self.items.by_path[path] for path in unreadable if path in self.items.by_path])
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

    def _forget(self, ids: list[int]) -> None:
        self.index.remove(ids)
        self.items.forget(ids)
