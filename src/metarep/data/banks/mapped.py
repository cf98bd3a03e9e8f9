"""MappedImages: the images of a bank on disk, memory-mapped shard by shard."""

import ctypes
import platform
import threading
from collections.abc import Iterator, Sequence
from math import prod
from mmap import PAGESIZE
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from metarep.errors import DataError

RANDOM, WILLNEED = 1, 3  # advice to madvise: read no pages ahead; read all pages into the page cache now
AT_ONCE = 1 << 24  # bytes that are read at once where all images are read in order


class MappedImages:
    """Images of one size in the files of a bank, of which only the pages that are read take memory.

    The pages belong to the page cache of the system: it shares them between processes, and takes them back when memory
    is needed. A shard of grey images in a bank of colour is stored with one channel, and repeated when it is read.

    Args:
        parts: the images of each shard, ``(rows, 1 or c, h, w)``; maps of files.
        channels: channels of the images; None for the most of any shard.
        spans: ranges of rows of all shards together that are the images here, in order; None for all of them.

    >>> grey, colour = np.zeros((2, 1, 4, 4), np.uint8), np.ones((3, 3, 4, 4), np.uint8)
    >>> images = MappedImages([grey, colour])
    >>> images.shape, images.pixels(torch.tensor([4, 0])).float().mean((1, 2, 3)).tolist()
    ((5, 3, 4, 4), [1.0, 0.0])
    """

    def __init__(
        self,
        parts: Sequence[UInt8[np.ndarray, "_ _ h w"]],
        channels: int | None = None,
        spans: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self.parts = tuple(parts)
        self.channels = channels or max(part.shape[1] for part in self.parts)
        self._part_ends = np.cumsum([len(part) for part in self.parts])
        self.spans = np.array([(0, self._part_ends[-1])] if spans is None else spans, dtype=np.int64).reshape(-1, 2)
        self._span_ends = np.cumsum(self.spans[:, 1] - self.spans[:, 0])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Number, channels, height and width of the images."""
        return int(self._span_ends[-1]), self.channels, *self.parts[0].shape[2:]

    @property
    def nbytes(self) -> int:
        """The size of the images in bytes, once they are in one tensor."""
        return prod(self.shape)

    def pixels(self, rows: Int[Tensor, " n"], *, pinned: bool = False) -> UInt8[Tensor, "n c h w"]:
        """Read the images at some rows; numpy copies them, which leaves other threads of Python free to run.

        Args:
            rows: the rows, in any order.
            pinned: put them in memory from which a GPU copies while the CPU goes on.

        Raises:
            IndexError: there is no such row.
        """
        index = self._stored_at(rows)
        out = torch.empty(len(index), *self.shape[1:], dtype=torch.uint8, pin_memory=pinned)
        order = np.argsort(index, kind="stable")
        sorted_out, low = np.empty(out.shape, np.uint8), 0
        for part, local in self._by_part(index[order]):
            high = low + len(local)
            if part.shape[1] == self.channels:
                part.take(local, axis=0, out=sorted_out[low:high], mode="clip")
            else:
                sorted_out[low:high] = part[local]
            low = high
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        np.take(sorted_out, back, axis=0, out=out.numpy(), mode="clip")
        return out

    def fetch(self, rows: Int[Tensor, " n"]) -> None:
        """Ask the system to read the images at some rows into its page cache, all of them at the same time.

        It returns before they are there. A disk that is asked for one image after the other is much slower. Nothing is
        done where the system takes no such advice.

        Raises:
            IndexError: there is no such row.
        """
        for part, local in self._by_part(np.sort(self._stored_at(rows))):
            _advise([part[row] for row in local], WILLNEED)

    def _stored_at(self, rows: Int[Tensor, " n"]) -> Int[np.ndarray, " n"]:
        """The rows of these images, counted over all shards. A bank may hold only some ranges of them."""
        index = rows.cpu().numpy()
        if len(index) and not 0 <= index.min() <= index.max() < self.shape[0]:
            raise IndexError(f"rows {index.min()} to {index.max()} of a bank of {self.shape[0]} images")
        return index + (self.spans[:, 1] - self._span_ends)[np.searchsorted(self._span_ends, index, side="right")]

    def _by_part(
        self, ordered: Int[np.ndarray, " n"]
    ) -> Iterator[tuple[UInt8[np.ndarray, "rows c h w"], Int[np.ndarray, " m"]]]:
        """Yield each shard with some of these rows, and the rows within it. ``ordered`` counts over all shards."""
        bounds = np.searchsorted(ordered, [0, *self._part_ends]).tolist()
        for number, part in enumerate(self.parts):
            low, high = bounds[number], bounds[number + 1]
            if low < high:
                yield part, ordered[low:high] - (self._part_ends[number] - len(part))

    def select(self, ranges: Sequence[tuple[int, int]]) -> "MappedImages":
        """The images of some ranges of rows, ``(start, stop)`` each. Nothing is read."""
        spans = []
        for start, stop in ranges:
            firsts = self._span_ends - (self.spans[:, 1] - self.spans[:, 0])
            for number in range(np.searchsorted(self._span_ends, start, side="right"), len(self.spans)):
                if firsts[number] >= stop:
                    break
                shift = self.spans[number, 0] - firsts[number]
                spans.append((max(start, firsts[number]) + shift, min(stop, self._span_ends[number]) + shift))
        return MappedImages(self.parts, self.channels, [(int(low), int(high)) for low, high in spans])

    @staticmethod
    def join(images: Sequence["MappedImages"]) -> "MappedImages":
        """Concatenate mapped images of one shape."""
        firsts = np.cumsum([0, *(each.parts_rows for each in images)])
        spans = np.concatenate([each.spans + first for each, first in zip(images, firsts, strict=False)])
        parts = [part for each in images for part in each.parts]
        return MappedImages(parts, images[0].channels, [(int(low), int(high)) for low, high in spans])

    @property
    def parts_rows(self) -> int:
        """The number of images in all shards, whether they belong to these images or not."""
        return int(self._part_ends[-1])

    def pieces(self) -> Iterator[UInt8[np.ndarray, "n c h w"]]:
        """Views of the shards that hold these images and nothing else."""
        for number, part in enumerate(self.parts):
            first = self._part_ends[number] - len(part)
            for low, high in self.spans:
                if len(piece := part[max(0, low - first) : max(0, high - first)]):
                    yield piece

    def chunks(self, size: int) -> Iterator[UInt8[Tensor, "n c h w"]]:
        """All images in order, ``size`` at a time."""
        for rows in torch.arange(self.shape[0]).split(size):
            yield self.pixels(rows)

    def tensor(self, device: torch.device | str = "cpu") -> UInt8[Tensor, "n c h w"]:
        """Read all images into one tensor on a device.

        Raises:
            DataError: they do not fit.
        """
        try:
            out = torch.empty(self.shape, dtype=torch.uint8, device=device)
        except (RuntimeError, MemoryError) as error:
            raise DataError(
                f"all images of the bank take {self.nbytes / 1e9:.1f} GB, which do not fit on {device}; read some of "
                "them, by pixels"
            ) from error
        done = 0
        for some in self.chunks(max(1, AT_ONCE // prod(self.shape[1:]))):
            out[done : done + len(some)] = some
            done += len(some)
        return out

    def advise(self, advice: int) -> None:
        """Tell the system how the images will be read, in a thread, since it may read them now. Not on Windows.

        Args:
            advice: ``RANDOM`` or ``WILLNEED``.
        """
        threading.Thread(target=_advise, args=(list(self.pieces()), advice), daemon=True).start()


def map_file(path: Path, shape: Sequence[int]) -> UInt8[np.ndarray, "n c h w"]:
    """Map a ``.npy`` file of uint8 images. The map is private: writing to it changes nothing on disk.

    No file stays open, so that the number of shards is not bounded by that of open files.

    Raises:
        ValueError: the file does not hold an array of this shape, or is longer or shorter than that.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"{path.name} is a .npy file of version {version}")
        header = np.lib.format.read_array_header_1_0(file)
        start, size = file.tell(), file.seek(0, 2)
    if header != (tuple(shape), False, np.dtype(np.uint8)) or size != start + prod(shape):
        raise ValueError(f"{path.name} holds {size - start:,} bytes of shape {header[0]}, not {tuple(shape)}")
    content = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    return content[start:].view(tuple(shape)).numpy()


def _advise(parts: Sequence[np.ndarray], advice: int) -> None:
    if platform.system() not in ("Linux", "Darwin"):
        return
    libc = ctypes.CDLL(None)
    for part in parts:
        start = part.ctypes.data // PAGESIZE * PAGESIZE
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(part.ctypes.data + part.nbytes - start), advice)
