"""Sampling: each image seen through an affine map of its own, bilinear, the edge repeated beyond the edge.

Bytes on the CPU go through C code where it is at hand; all else goes through torch, with equal views.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.nn import functional

from metarep.machine import faster

CHUNK = 2**19  # numbers that are worked on at a time: they stay in a core's cache


def sample(x: Num[Tensor, "n c h w"], matrix: Float[Tensor, "n 2 3"]) -> Float[Tensor, "n c h w"]:
    """Each image at the places its map names: bytes become 0 to 1, floats keep their range.

    Args:
        x: the images; float64 is computed in float64, all else in float32.
        matrix: from places in the view to places in the image, in units of -1 to 1.
    """
    views = faster.sample(x, matrix)
    return sample_by_torch(x, matrix) if views is None else views


def sample_by_torch(x: Num[Tensor, "n c h w"], matrix: Float[Tensor, "n 2 3"]) -> Float[Tensor, "n c h w"]:
    """By ``grid_sample``, a part of the batch at a time."""
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
    """Slices of a batch: small enough for a core's cache, all at once on an accelerator."""
    each = max(1, len(x) if x.is_cuda else CHUNK // (2 * x[:1].numel() + 2 * x.shape[2] * x.shape[3] + 1))
    return (slice(start, start + each) for start in range(0, len(x), each))


def lattice(
    matrix: Float[Tensor, "n 2 3"], height: int, width: int
) -> tuple[Float[Tensor, "n 2 1 width"], Float[Tensor, "n 2 height 1"]]:
    """What the column and the row of a pixel of the view contribute to its place in the image; the place is their sum.

    One addition a place, where ``affine_grid`` multiplies matrices of two columns and takes longer than the sampling.
    """
    across = matrix[:, :, :1] * _centres(width, matrix)
    down = matrix[:, :, 1:2] * _centres(height, matrix) + matrix[:, :, 2:]
    return across.unsqueeze(2), down.unsqueeze(3)


def _centres(side: int, like: Tensor) -> Tensor:
    """Where the centres of ``side`` pixels lie between -1 and 1."""
    return (torch.arange(side, dtype=like.dtype, device=like.device) * 2 + 1) / side - 1
