"""ImageBank: the one object that holds the pixels of a data set. It does not know their labels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int, Shaped, UInt8
from torch import Tensor

from metarep.data.banks.mapped import MappedImages
from metarep.data.labels import Labels
from metarep.data.pixels import channels_first
from metarep.errors import DataError
from metarep.machine.device import available_bytes

if TYPE_CHECKING:
    from metarep.data.reading.depth import Depth


@dataclass(frozen=True)
class ImageBank:
    """Holds images of one size as uint8: in one tensor on a device, or in memory-mapped shards on disk.

    Everything else refers to an image by its row here. So a task is a set of integers, and a batch is one gather.

    Args:
        stored: uint8 pixels from 0 to 255, channels first; or the mapped shards of a bank on disk.
        device: where the batches of mapped images are put.

    >>> bank = ImageBank.from_arrays(np.arange(10, dtype=np.uint8).reshape(10, 1, 1))
    >>> bank.pixels(torch.tensor([[0, 3], [9, 9]])).flatten(1)
    tensor([[0, 3],
            [9, 9]], dtype=torch.uint8)
    """

    stored: UInt8[Tensor, "n c h w"] | MappedImages
    device: torch.device | str = "cpu"

    def __len__(self) -> int:
        return self.stored.shape[0]

    @property
    def images(self) -> UInt8[Tensor, "n c h w"]:
        """All pixels in one tensor. Images in shards are read into memory at each use; ``pixels`` reads some of them.

        Raises:
            DataError: they do not fit into memory.
        """
        return self.stored if isinstance(self.stored, Tensor) else self.stored.tensor()

    @property
    def channels(self) -> int:
        """Channels of an image: 1 for grey, 3 for RGB."""
        return self.stored.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.stored.shape[2], self.stored.shape[3]

    def pixels(self, index: Int[Tensor, "*shape"]) -> UInt8[Tensor, "*shape c h w"]:
        """Gather the images at the rows ``index``: uint8, ``(*index.shape, c, h, w)``, on the device of the bank."""
        flat = index.reshape(-1)
        if isinstance(self.stored, Tensor):
            flat = self.stored.index_select(0, flat.to(self.stored.device, non_blocking=True))
        else:
            flat = self.read(flat).to(self.device, non_blocking=True)
        return flat.view(*index.shape, *self.stored.shape[1:])

    def read(self, rows: Int[Tensor, " n"]) -> UInt8[Tensor, "n c h w"]:
        """Read mapped images into memory from which they are copied to the device of the bank."""
        assert isinstance(self.stored, MappedImages)
        return self.stored.pixels(rows, pinned=torch.device(self.device).type == "cuda")

    def fetch(self, rows: Int[Tensor, " n"]) -> None:
        """Say that ``pixels`` will soon be asked for these images: those on disk are read at the same time."""
        if isinstance(self.stored, MappedImages):
            self.stored.fetch(rows)

    def held(self, rows: Int[Tensor, " n"]) -> Int[Tensor, " m"]:
        """Those of the rows that this process holds: all of them, unless this is a ``LocalBank``."""
        return rows

    def gathered(self, rows: Shaped[Tensor, "n *row"]) -> Shaped[Tensor, "m *row"]:
        """What was computed from the rows that are :meth:`held`, of all processes that hold images of this bank."""
        return rows

    def between(self, start: int, stop: int) -> "ImageBank":
        """A bank of the images from row ``start`` up to, not including, row ``stop``. Nothing is copied.

        >>> len(ImageBank(torch.zeros(9, 1, 4, 4, dtype=torch.uint8)).between(2, 6))
        4
        """
        if isinstance(self.stored, Tensor):
            return ImageBank(self.stored[start:stop])
        return ImageBank(self.stored.select([(start, stop)]), self.device)

    def chunks(self, size: int) -> Iterator[UInt8[Tensor, "n c h w"]]:
        """All images in order, ``size`` at a time."""
        return iter(self.stored.split(size)) if isinstance(self.stored, Tensor) else self.stored.chunks(size)

    def to(self, device: torch.device | str) -> "ImageBank":
        """Return a bank with the same images, whose batches are on ``device``.

        A tensor is copied there. Mapped images are copied if they take at most half of the free memory of a GPU.
        Otherwise they stay mapped, and each batch is copied. For the CPU they always stay mapped: the page cache of the
        system then holds them once for all processes.
        """
        device = torch.device(device)
        if isinstance(self.stored, Tensor):
            return ImageBank(self.stored.to(device))
        if device.type == "cpu":
            return ImageBank(self.stored)
        fits = self.stored.nbytes <= available_bytes(device) // 2
        return ImageBank(self.stored.tensor(device)) if fits else ImageBank(self.stored, device)

    @staticmethod
    def join(banks: Sequence["ImageBank"]) -> "ImageBank":
        """Concatenate banks whose images have the same shape.

        Raises:
            DataError: the banks differ in the shape of their images, or there is no bank.

        >>> grey = ImageBank.from_arrays(np.zeros((2, 4, 4), dtype=np.uint8))
        >>> len(ImageBank.join([grey, grey, grey]))
        6
        """
        shapes = {tuple(bank.stored.shape[1:]) for bank in banks}
        if len(shapes) != 1:
            raise DataError(f"image banks of different shapes cannot be joined: {sorted(shapes)}")
        mapped = [bank.stored for bank in banks if isinstance(bank.stored, MappedImages)]
        if len(mapped) == len(banks):
            return ImageBank(MappedImages.join(mapped), banks[0].device)
        return ImageBank(torch.cat([bank.images for bank in banks]))

    @classmethod
    def of(cls, images: MappedImages) -> "ImageBank":
        """The bank of a data set on disk; one of a single shard is one tensor, which needs no more than its map."""
        pieces = list(images.pieces()) if len(images.parts) == 1 else []
        one = len(pieces) == 1 and pieces[0].shape[1] == images.channels
        return cls(torch.from_numpy(pieces[0]) if one else images)

    @classmethod
    def from_arrays(cls, images: np.ndarray | Tensor) -> "ImageBank":
        """Make a bank of images that are already in memory.

        Args:
            images: uint8, ``(n, h, w)``, ``(n, c, h, w)`` or ``(n, h, w, c)`` with 1 or 3 channels.

        Raises:
            DataError: the array has another type or shape, or is empty. Floats are refused: an array does not say
                whether 1.0 is white or nearly black.

        >>> bank = ImageBank.from_arrays(np.zeros((5, 24, 32, 3), dtype=np.uint8))
        >>> len(bank), bank.channels, bank.size
        (5, 3, (24, 32))
        """
        return cls(channels_first(images))

    @classmethod
    def from_dataset(
        cls,
        dataset: Any,  # noqa: ANN401 - any torch Dataset
        *,
        image: str | int | None = None,
        label: str | int | None = None,
        depth: "Depth | str | int | None" = None,
    ) -> "tuple[ImageBank, Labels]":
        """Read the images and labels of a map-style data set: one of torch or Hugging Face, or a list.

        Each item is a tuple that begins with ``(image, label)``, or a dictionary with an image and a label. If some
        images are coloured, all of them get three channels.

        Args:
            dataset: the items, indexed from 0. All images have one size. An image is a PIL picture of any mode, a
                file or its bytes, a uint8 array, or a float tensor ``(c, h, w)`` from 0 to 1, as ``ToTensor`` gives.
                A label is a number, a string or one-hot. Class names of a Hugging Face data set are used.
            image, label: the key or the position of each in an item. By default ``image`` or ``img`` and ``label`` or
                ``labels`` of a dictionary, and the first two parts of a tuple.
            depth: which values are black and white in pictures of more than 8 bits; see
                :mod:`metarep.data.reading.depth`.

        Returns:
            The bank, and the class of each of its images.

        Raises:
            DataError: the data set is empty, images differ in size, a float lies outside 0 to 1, or an item has no
                class.

        Warns:
            DepthWarning: black and white of pictures of more than 8 bits were assumed.

        >>> grey = np.zeros((8, 8), dtype=np.uint8)
        >>> items = [{"img": grey, "label": "cat"}, {"img": grey, "label": "dog"}]
        >>> bank, labels = ImageBank.from_dataset(items)
        >>> bank.images.shape, labels.names
        (torch.Size([2, 1, 8, 8]), ('cat', 'dog'))
        """
        from metarep.data.reading.depth import Depth
        from metarep.data.reading.torch_dataset import read_dataset  # not above: its package imports this module

        pixels, labels = read_dataset(dataset, image, label, Depth.of(depth))
        return cls(pixels), labels
