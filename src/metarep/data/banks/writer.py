"""BankWriter: writes images of any source to disk, class by class, as a data set that may be larger than memory."""

import hashlib
import os
from contextlib import ExitStack
from math import prod
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Num, UInt8
from torch import Tensor

from metarep.data.banks.manifest import MANIFEST, Manifest, Shard
from metarep.data.class_names import clean_name
from metarep.data.pixels import channels_first
from metarep.data.reading.depth import Depth
from metarep.errors import DataError, MetarepError
from metarep.machine.files import making

SHARD = 1 << 26  # bytes of the images of a shard, 64 MiB
CHUNK = 1 << 22  # bytes that are written at once
PARTS = ("train", "val", "test")


class BankWriter:
    """Writes a bank: images of one size, one class after the other, whatever their number.

    One shard (64 MiB) is in memory at a time. The folder appears when all is written. It is a data set:
    ``load_dataset("bank:PATH", "train")`` maps it.

    Args:
        path: the folder to make.
        depth: which values were taken for black and white in pictures of more than 8 bits.

    Raises:
        MetarepError: there is something at ``path``, or another process is writing it.

    >>> from tempfile import TemporaryDirectory
    >>> from metarep import load_dataset
    >>> with TemporaryDirectory() as folder:
    ...     with BankWriter(f"{folder}/shades") as writer:
    ...         for level in range(4):
    ...             writer.add(f"shade {level}", np.full((30, 8, 8), level, np.uint8), split="test")
    ...     split = load_dataset(f"bank:{folder}/shades", "test")
    ...     len(split.bank), split.labels.names[3], int(split.bank.pixels(split.labels.rows[-1:]).max())
    (120, 'shade 3', 3)
    """

    def __init__(self, path: Path | str, *, depth: Depth | None = None) -> None:
        self.path, self.depth, self._stack = Path(path), depth or Depth(), ExitStack()
        self._buffer, self._filled, self._size = np.empty((0, 0, 0, 0), np.uint8), 0, (0, 0)
        self._shards: list[Shard] = []
        self._classes: dict[str, list] = {}  # its split, the number of its images, and its key
        self._content = hashlib.sha256()

    def __enter__(self) -> "BankWriter":
        exists = MetarepError(f"there is something at {self.path} already; remove it, or write to another folder")
        busy = MetarepError(f"another process is writing {self.path}; wait for it, or write to another folder")
        self._folder = self._stack.enter_context(making(self.path, MANIFEST, (), exists=exists, busy=busy))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if error is not None:
                raise error
            if not self._classes:
                raise DataError(f"{self.path} has no images; add those of at least one class")
            self._close_class()
            self._write()
            classes = [[name, *entry] for name, entry in self._classes.items()]
            facts = {"classes": classes, "depth": self.depth.as_dict()}
            Manifest(self._size, tuple(self._shards), facts).write(self._folder)

    def add(
        self, name: str, images: Num[np.ndarray, "..."] | Num[Tensor, "..."], *, split: str, key: str | None = None
    ) -> None:
        """Add images of a class. A class may be added in pieces, one after the other and before the next class.

        Args:
            name: the class.
            images: uint8, ``(n, h, w)``, ``(n, c, h, w)`` or ``(n, h, w, c)`` with 1 or 3 channels.
            split: ``train``, ``val`` or ``test``.
            key: the identity of the class across data sets; None for a digest of its pixels.

        Raises:
            DataError: the images have another shape than those before, the split is unknown, the class was added
                before other classes, or the disk is full.
        """
        pixels, name = channels_first(images).cpu().numpy(), clean_name(name)
        if not len(self._buffer):
            self._buffer = np.empty((max(1, SHARD // prod(pixels.shape[1:])), *pixels.shape[1:]), np.uint8)
            self._size = pixels.shape[2], pixels.shape[3]
        if pixels.shape[1:] != self._buffer.shape[1:]:
            shapes = f"{pixels.shape[1:]}, and those before {self._buffer.shape[1:]}"
            raise DataError(f"class {name!r} has images of shape {shapes}; scale all to one shape first")
        if split not in PARTS:
            raise DataError(f"class {name!r} has the split {split!r}; give one of {', '.join(PARTS)}")
        if name not in self._classes:
            self._close_class()
            self._classes[name] = [split, 0, key or ""]
        elif next(reversed(self._classes)) != name or self._classes[name][0] != split:
            raise DataError(f"class {name!r} was added before other classes, or to another split; add it at once")
        self._classes[name][1] += len(pixels)
        self._content.update(np.ascontiguousarray(pixels).data)
        while len(pixels):
            some = pixels[: len(self._buffer) - self._filled]
            self._buffer[self._filled : self._filled + len(some)] = some
            self._filled, pixels = self._filled + len(some), pixels[len(some) :]
            if self._filled == len(self._buffer):
                self._write()

    def _close_class(self) -> None:
        """Give the last class its key, unless it has one."""
        if self._classes and not (last := self._classes[next(reversed(self._classes))])[2]:
            last[2] = f"bank:{self._content.hexdigest()[:16]}"
        self._content = hashlib.sha256()

    def _write(self) -> None:
        """Write the shard that is in memory."""
        if not self._filled:
            return
        try:
            path = self._folder / f"{len(self._shards):06d}.npy"
            self._shards.append(write_shard(path, self._buffer[: self._filled]))
        except OSError as error:
            raise DataError(
                f"{self.path} cannot be written ({error.strerror}); make room there, or write to another folder"
            ) from error
        self._filled = 0


def write_shard(path: Path, images: UInt8[np.ndarray, "n c h w"]) -> Shard:
    """Write a ``.npy`` file of images, atomically, and return what the manifest says of it.

    A few images are written at a time, so that a transposed view is never copied as a whole. ``np.save`` is not used,
    because on a full disk it raises an ``OSError`` that does not say so.

    Raises:
        OSError: the file cannot be written.
    """
    content, step = hashlib.sha256(), max(1, CHUNK // prod(images.shape[1:]))
    partial = path.with_suffix(f".{os.getpid()}.part")
    try:
        with open(partial, "w+b") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": images.shape}
            np.lib.format.write_array_header_1_0(file, header)
            size = file.tell()
            file.seek(0)
            content.update(file.read(size))
            for row in range(0, len(images), step):
                some = np.ascontiguousarray(images[row : row + step]).data
                content.update(some)
                file.write(some)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return Shard(path.name, len(images), images.shape[1], content.hexdigest())
