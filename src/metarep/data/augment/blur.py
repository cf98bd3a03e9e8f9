"""Gaussian blur with a standard deviation of its own for each image, first along columns, then along rows."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from metarep.errors import DataError


def gaussian(sigma: Float[Tensor, " n"], kernel: int) -> Float[Tensor, "n kernel"]:
    """Compute Gaussian kernels whose weights sum to 1. A sigma of 0 gives the identity.

    Args:
        sigma: standard deviations in pixels.
        kernel: the length of each kernel in pixels; odd.

    >>> gaussian(torch.tensor([0.0, 1.0]), 3)
    tensor([[0.0000, 1.0000, 0.0000],
            [0.2741, 0.4519, 0.2741]])
    """
    offsets = torch.arange(kernel) - kernel // 2
    exponent = -0.5 * (offsets / sigma.clamp_min(1e-3).unsqueeze(1)) ** 2
    return exponent.softmax(1)


def blur(
    x: Float[Tensor, "b c h w"], sigma: Float[Tensor, " b"], taps: Float[Tensor, "b kernel"]
) -> Float[Tensor, "b c h w"]:
    """Blur the images whose ``sigma`` is above 0, and leave the others as they are.

    Beyond an edge, the image is mirrored about the pixels at the edge.

    Args:
        x: the images; they may be written to.
        sigma, taps: standard deviations and kernels of :func:`gaussian`. They are on the CPU, so that choosing the
            images to blur needs no host synchronisation.

    Raises:
        DataError: an image is too small to be mirrored by half the kernel.
    """
    reach = taps.shape[1] // 2
    if reach >= min(x.shape[2:]):
        raise DataError(
            f"images of {x.shape[2]} by {x.shape[3]} pixels are too small for a blur with a kernel of "
            f"{taps.shape[1]} pixels; set kernel to at most {2 * min(x.shape[2:]) - 1}, or blur to 0"
        )
    rows = sigma.nonzero().squeeze(1)
    if not len(rows):
        return x
    whole = len(rows) == len(x)
    taps = (taps if whole else taps[rows]).to(x.device)
    rows = rows.to(x.device)
    some = x if whole else x.index_select(0, rows)
    for _ in range(2):
        some = _blur_down(some, taps).mT.contiguous()
    return some if whole else x.index_copy_(0, rows, some)


def _blur_down(x: Float[Tensor, "b c h w"], taps: Float[Tensor, "b kernel"]) -> Float[Tensor, "b c h w"]:
    """Blur along the columns: every row becomes a weighted sum of rows, computed by the fast embedding bag."""
    b, c, h, w = x.shape
    first = torch.arange(0, b * c * h, h, device=x.device).view(-1, 1, 1)
    bags = (first + _neighbours(h, taps.shape[1], x.device)).view(b * c * h, -1)
    weights = taps.view(b, 1, 1, -1).expand(b, c, h, -1).reshape(b * c * h, -1)
    return functional.embedding_bag(bags, x.reshape(-1, w), per_sample_weights=weights, mode="sum").view(b, c, h, w)


def _neighbours(side: int, kernel: int, device: torch.device) -> Int[Tensor, "side kernel"]:
    """The positions of the pixels around each pixel of a line, mirrored about the pixels at its ends."""
    positions = torch.arange(side, device=device).unsqueeze(1) + torch.arange(kernel, device=device) - kernel // 2
    positions = positions.abs()
    return torch.where(positions >= side, 2 * (side - 1) - positions, positions)
