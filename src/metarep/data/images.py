"""ImageBank: the one object that holds the pixels of a data set. It does not know their labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from metarep.data.labels import Labels
from metarep.data.pixels import channels_first
from metarep.errors import DataError

if TYPE_CHECKING:
    from metarep.data.reading.depth import Depth


@dataclass(frozen=True)
class ImageBank:
    """Holds images of one size as uint8, on one device or memory-mapped from a cache file.

    Everything else refers to an image by its row here. So a task is a set of integers, and a batch is one gather.

    Args:
        images: uint8 pixels from 0 to 255, channels first.

    >>> bank = ImageBank.from_arrays(np.arange(10, dtype=np.uint8).reshape(10, 1, 1))
    >>> bank.pixels(torch.tensor([[0, 3], [9, 9]])).flatten(1)
    tensor([[0, 3],
            [9, 9]], dtype=torch.uint8)
    """

    images: UInt8[Tensor, "n c h w"]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        """Channels of an image: 1 for grey, 3 for RGB."""
        return self.images.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.images.shape[2], self.images.shape[3]

    def pixels(self, index: Int[Tensor, "*shape"]) -> UInt8[Tensor, "*shape c h w"]:
        """Gather the images at the rows ``index``: uint8, ``(*index.shape, c, h, w)``, on the device of the bank."""
        flat = self.images.index_select(0, index.reshape(-1).to(self.images.device, non_blocking=True))
        return flat.view(*index.shape, *self.images.shape[1:])

    def to(self, device: torch.device | str) -> "ImageBank":
        """Return a bank with the same images on ``device``."""
        return ImageBank(self.images.to(device))

    @staticmethod
    def join(banks: Sequence["ImageBank"]) -> "ImageBank":
        """Concatenate banks whose images have the same shape.

        Raises:
            DataError: the banks differ in the shape of their images, or there is no bank.

        >>> grey = ImageBank.from_arrays(np.zeros((2, 4, 4), dtype=np.uint8))
        >>> len(ImageBank.join([grey, grey, grey]))
        6
        """
        shapes = {tuple(bank.images.shape[1:]) for bank in banks}
        if len(shapes) != 1:
            raise DataError(f"image banks of different shapes cannot be joined: {sorted(shapes)}")
        return ImageBank(torch.cat([bank.images for bank in banks]))

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
