"""Sampling: each image seen through an affine map of its own, bilinear, the edge repeated beyond the edge.

On a processor bytes go through ``sampling.c``, which takes a third of the time; all else goes through torch, with equal
views.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Num, UInt8
from torch import Tensor
from torch.nn import functional

from metarep.compiled import call, in_parts, library

CHUNK = 2**19  # numbers that are worked on at a time: they stay in a core's cache
WIDEST = 1024  # BLOCK of sampling.c
WORTH_A_THREAD = 2**18  # numbers; less takes no longer than handing them over


def sample(x: Num[Tensor, "n c h w"], matrix: Float[Tensor, "n 2 3"]) -> Float[Tensor, "n c h w"]:
    """Each image at the places its map names: bytes become 0 to 1, floats keep their range; the choice of path is here.

    Args:
        x: the images; float64 is computed in float64, all else in float32.
        matrix: from places in the view to places in the image, in units of -1 to 1.
    """
    height, width = x.shape[2:]
    fits = x.dtype == torch.uint8 and x.device.type == "cpu" and min(height, width) >= 2 and width <= WIDEST
    return sample_compiled(x, matrix) if fits and library() is not None else sample_by_torch(x, matrix)


def sample_compiled(x: UInt8[Tensor, "n c h w"], matrix: Float[Tensor, "n 2 3"]) -> Float[Tensor, "n c h w"]:
    """By ``sampling.c``, on as many threads as torch has."""
    x, matrix, views = x.contiguous(), matrix.to(torch.float32).contiguous(), torch.empty(x.shape)

    def part(start: int, stop: int) -> None:
        call("metarep_sample", (x[start:stop], matrix[start:stop], views[start:stop]), stop - start, *x.shape[1:])

    in_parts(part, len(x), x.numel() // WORTH_A_THREAD)
    return views


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
