"""Gaussian blur, each image its own width: down the columns, then along the rows."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from metarep.errors import DataError


def gaussian(sigma: Float[Tensor, " n"], kernel: int) -> Float[Tensor, "n kernel"]:
    """Weights at ``kernel`` whole pixels about the middle, which sum to 1; a sigma of 0 is all in the middle.

    >>> gaussian(torch.tensor([0.0, 1.0]), 3)
    tensor([[0.0000, 1.0000, 0.0000],
            [0.2741, 0.4519, 0.2741]])
    """
    places = torch.arange(kernel) - kernel // 2
    exponent = -0.5 * (places / sigma.clamp_min(1e-3).unsqueeze(1)) ** 2
    return exponent.softmax(1)


def blur(
    x: Float[Tensor, "b c h w"], sigma: Float[Tensor, " b"], taps: Float[Tensor, "b kernel"]
) -> Float[Tensor, "b c h w"]:
    """The images with a ``sigma`` above 0 blurred by ``taps``, mirrored about the edge pixels; the others as they are.

    ``sigma`` and ``taps`` are on the CPU, so that which images are blurred is known without asking the device.

    Raises:
        DataError: the image is too small to be mirrored that far.
    """
    reach = taps.shape[1] // 2
    if reach >= min(x.shape[2:]):
        raise DataError(
            f"images of {x.shape[2]} by {x.shape[3]} pixels are too small for a blur with a kernel of {taps.shape[1]}"
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
    """Every row becomes a weighted sum of rows, which is what an embedding bag computes, and fast."""
    b, c, h, w = x.shape
    first = torch.arange(0, b * c * h, h, device=x.device).view(-1, 1, 1)
    bags = (first + _neighbours(h, taps.shape[1], x.device)).view(b * c * h, -1)
    weights = taps.view(b, 1, 1, -1).expand(b, c, h, -1).reshape(b * c * h, -1)
    return functional.embedding_bag(bags, x.reshape(-1, w), per_sample_weights=weights, mode="sum").view(b, c, h, w)


def _neighbours(side: int, kernel: int, device: torch.device) -> Int[Tensor, "side kernel"]:
    """The pixels about each pixel of a line; beyond an edge, those mirrored at the edge pixel."""
    places = torch.arange(side, device=device).unsqueeze(1) + torch.arange(kernel, device=device) - kernel // 2
    places = places.abs()
    return torch.where(places >= side, 2 * (side - 1) - places, places)
