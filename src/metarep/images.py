"""ImageBank: the only owner of pixels. It knows nothing of labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from metarep.errors import DataError
from metarep.labels import Labels
from metarep.pixels import channels_first

if TYPE_CHECKING:
    from metarep.datasets.depth import Depth


@dataclass(frozen=True)
class ImageBank:
    """Images of one size as uint8, resident on one device or memory-mapped from a cache file.

    Everything else refers to images by their row here, so tasks are integers and a batch is one gather.

    Args:
        images: uint8 pixels, 0 to 255, channels first.

    >>> bank = ImageBank.from_arrays(np.zeros((10, 28, 28), dtype=np.uint8))
    >>> bank.pixels(torch.tensor([[0, 3], [9, 9]])).shape
    torch.Size([2, 2, 1, 28, 28])
    """

    images: UInt8[Tensor, "n c h w"]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.images.shape[2], self.images.shape[3]

    def pixels(self, index: Int[Tensor, "*shape"]) -> UInt8[Tensor, "*shape c h w"]:
        """The images at ``index``, in its shape: a gather on the device of the bank."""
        flat = self.images.index_select(0, index.reshape(-1).to(self.images.device, non_blocking=True))
        return flat.view(*index.shape, *self.images.shape[1:])

    def to(self, device: torch.device | str) -> "ImageBank":
        """The same bank with its pixels on ``device``."""
        return ImageBank(self.images.to(device))

    @staticmethod
    def join(banks: Sequence["ImageBank"]) -> "ImageBank":
        """The images of several banks of one size, one after the other."""
        shapes = {tuple(bank.images.shape[1:]) for bank in banks}
        if len(shapes) != 1:
            raise DataError(f"image banks of different shapes cannot be joined: {sorted(shapes)}")
        return ImageBank(torch.cat([bank.images for bank in banks]))

    @classmethod
    def from_arrays(cls, images: np.ndarray | Tensor) -> "ImageBank":
        """A bank of images that are already in memory.

        Args:
            images: uint8, ``(n, h, w)``, ``(n, c, h, w)`` or ``(n, h, w, c)`` with 1 or 3 channels.

        Raises:
            DataError: another type or shape, or no images at all. Floats are refused rather than guessed at:
                nothing in an array says whether 1.0 is white or nearly black.
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
        """The images and labels of a data set whose items can be asked for by number: torch's, Hugging Face's, a list.

        Items are ``(image, label)``, where more may follow, or dictionaries with an image and a label. Grey images
        among coloured ones get three channels.

        Args:
            dataset: images may be PIL pictures of any mode, files or their bytes, uint8 arrays, or float tensors
                ``(c, h, w)`` in 0 to 1 (what ``ToTensor`` makes); all of one size. Labels are numbers, strings or
                one-hot; where a data set of Hugging Face names its classes, those are their names.
            image, label: where they stand in an item, as a name or a place; by default ``image`` or ``img`` and
                ``label`` or ``labels`` of a dictionary, the first two of anything else.
            depth: black and white of pictures of more than 8 bits; see :mod:`metarep.datasets.depth`.

        Raises:
            DataError: an empty data set, images of several sizes, values outside 0 to 1, an item without a class.

        Warns:
            DepthWarning: black and white of deep pictures were assumed.

        >>> grey = np.zeros((8, 8), dtype=np.uint8)
        >>> items = [{"img": grey, "label": "cat"}, {"img": grey, "label": "dog"}]
        >>> bank, labels = ImageBank.from_dataset(items)
        >>> bank.images.shape, labels.names
        (torch.Size([2, 1, 8, 8]), ('cat', 'dog'))
        """
        from metarep.datasets.depth import Depth
        from metarep.datasets.torch_dataset import read_dataset  # not above: its package imports this module

        pixels, labels = read_dataset(dataset, image, label, Depth.of(depth))
        return cls(pixels), labels
