"""Sampling of each image under its own affine map: bilinear, with the edge pixels repeated beyond the edge.

Bytes on the CPU are sampled by C code if it is installed, other images by torch. The results are equal.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.nn import functional

from metarep.machine import faster

CHUNK = 2**19  # numbers that are processed at a time: they stay in the cache of a core


def sample(x: Num[Tensor, "n c h w"], matrix: Float[Tensor, "n 2 3"]) -> Float[Tensor, "n c h w"]:
    """Samples each image under its affine map and returns the views: bytes become 0 to 1, floats keep their range.

    Args:
        x: the images; float64 is computed in float64, all other dtypes in float32.
        matrix: affine maps from positions in the view to positions in the image, both from -1 to 1.

    >>> image = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
    >>> flip = torch.tensor([[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    >>> sample(image, flip).tolist()
    [[[[1.0, 0.0]]]]
    """
    views = faster.sample(x, matrix)
    return sample_by_torch(x, matrix) if views is None else views


def sample_by_torch(x: Num[Tensor, "n c h w"], matrix: Float[Tensor, "n 2 3"]) -> Float[Tensor, "n c h w"]:
    """Samples as :func:`sample` does by ``grid_sample``, a part of the batch at a time."""
    work = torch.float64 if x.dtype == torch.float64 else torch.float32
    across, down = lattice(matrix.to(x.device, work, non_blocking=True), x.shape[2], x.shape[3])
    views = torch.empty(x.shape, dtype=work, device=x.device)
    for part in parts(x):
        grid = (across[part] + down[part]).permute(0, 2, 3, 1)
        view = functional.grid_sample(
            x[part].to(work), grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        if not x.is_floating_point():
            view.mul_(1 / 255).clamp_(max=1)  # sums of weights may round to just above 1
        views[part] = view
    return views


def parts(x: Num[Tensor, "n c h w"]) -> Iterator[slice]:
    """Yields slices of a batch, each small enough for the cache of a core; one slice on an accelerator."""
    each = max(1, len(x) if x.is_cuda else CHUNK // (2 * x[:1].numel() + 2 * x.shape[2] * x.shape[3] + 1))
    return (slice(start, start + each) for start in range(0, len(x), each))


def lattice(
    matrix: Float[Tensor, "n 2 3"], height: int, width: int
) -> tuple[Float[Tensor, "n 2 1 width"], Float[Tensor, "n 2 height 1"]]:
    """Returns the parts of a pixel's position in the image that its column and its row in the view contribute.

    The position is the sum of the two parts, one addition for each pixel. ``affine_grid`` multiplies matrices of two
    columns instead, which takes longer than the sampling.
    """
    across = matrix[:, :, :1] * _centres(width, matrix)
    down = matrix[:, :, 1:2] * _centres(height, matrix) + matrix[:, :, 2:]
    return across.unsqueeze(2), down.unsqueeze(3)


def _centres(side: int, like: Tensor) -> Tensor:
    """Returns the positions of the centres of ``side`` pixels between -1 and 1."""
    return (torch.arange(side, dtype=like.dtype, device=like.device) * 2 + 1) / side - 1
