"""Arrays of images as uint8 tensors, channels first."""

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from metarep.errors import DataError


def channels_first(images: np.ndarray | Tensor) -> UInt8[Tensor, "n c h w"]:
    """The images of an array as a contiguous tensor of shape ``(n, c, h, w)``, with values 0 to 255.

    Args:
        images: uint8, ``(n, h, w)``, ``(n, c, h, w)`` or ``(n, h, w, c)`` with 1 or 3 channels.

    Raises:
        DataError: another type or shape, or no images at all.

    >>> channels_first(np.zeros((10, 28, 28, 3), dtype=np.uint8)).shape
    torch.Size([10, 3, 28, 28])
    """
    if not isinstance(images, Tensor):  # a tensor cannot share memory that must not be written to
        images = torch.from_numpy(np.require(images, requirements=["C", "W"]))
    pixels = images
    if pixels.dtype != torch.uint8:
        raise DataError(f"images must be uint8 with values 0 to 255, not {pixels.dtype}; scale and convert them first")
    if pixels.ndim == 3:
        pixels = pixels.unsqueeze(1)
    elif pixels.ndim == 4 and pixels.shape[1] not in (1, 3) and pixels.shape[3] in (1, 3):
        pixels = pixels.permute(0, 3, 1, 2)
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or 0 in pixels.shape:
        raise DataError(
            f"images must have shape (n, h, w), (n, c, h, w) or (n, h, w, c) with 1 or 3 channels, "
            f"not {tuple(images.shape)}"
        )
    return pixels.contiguous()
