"""Rotation, scale, shear, shift, crop and flip: one affine map an image, one resampling of its pixels."""

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional


def draw_matrices(
    n: int,
    generator: Generator,
    aspect: float,
    rotate: float,
    scale: tuple[float, float],
    shear: float,
    shift: float,
    *,
    crop: tuple[float, float] | None,
    ratio: tuple[float, float],
    flip: float,
) -> Float[Tensor, "n 2 3"]:
    """For each image the map from places in the view to places in the image; arguments as in ``Augment``.

    What is drawn, and in which order, is part of every trained run: resuming and reproducing need it unchanged.
    """
    draw = torch.rand(10, n, generator=generator)

    def between(i: int, low: float, high: float) -> Tensor:
        return low + (high - low) * draw[i]

    turn = torch.deg2rad(between(0, -rotate, rotate))
    grow = between(1, *scale)
    slant_x = torch.deg2rad(between(2, -shear, shear)).tan()
    slant_y = torch.deg2rad(between(3, -shear, shear)).tan()
    linear = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], dim=-1).view(n, 2, 2)
    slant = torch.stack([torch.ones(n), slant_x, slant_y, torch.ones(n)], dim=-1).view(n, 2, 2)
    linear = linear @ slant / grow.view(n, 1, 1) * torch.tensor([[1.0, 1 / aspect], [aspect, 1.0]])
    offset = torch.stack([between(4, -shift, shift), between(5, -shift, shift)], dim=-1) * 2
    if crop is not None:
        form = between(7, math.log(ratio[0]), math.log(ratio[1])).exp()
        area = between(6, *crop)
        sides = torch.stack([(area * form).sqrt(), (area / form).sqrt()], dim=-1).clamp_max(1)
        offset = offset + (1 - sides) * (draw[8:10].T * 2 - 1)
        linear = linear * sides.unsqueeze(1)
    if flip:
        mirrored = torch.rand(n, generator=generator) < flip
        sign = torch.stack([1 - 2 * mirrored.float(), torch.ones(n)], dim=-1)
        linear = linear * sign.unsqueeze(1)
    return torch.cat([linear, offset.unsqueeze(-1)], dim=-1)


def lattice(
    matrix: Float[Tensor, "n 2 3"], height: int, width: int
) -> tuple[Float[Tensor, "n 2 1 width"], Float[Tensor, "n 2 height 1"]]:
    """What the column and the row of a pixel of the view contribute to its place in the image; the place is their sum.

    One addition a place, where ``affine_grid`` multiplies matrices of two columns and takes longer than the sampling.
    """
    across = matrix[:, :, :1] * _centres(width, matrix)
    down = matrix[:, :, 1:2] * _centres(height, matrix) + matrix[:, :, 2:]
    return across.unsqueeze(2), down.unsqueeze(3)


def sample(
    x: Float[Tensor, "b c h w"],
    across: Float[Tensor, "b 2 1 w"],
    down: Float[Tensor, "b 2 h 1"],
) -> Float[Tensor, "b c h w"]:
    """Each image seen at the places of its lattice: bilinear, the edge repeated beyond the edge."""
    grid = (across + down).permute(0, 2, 3, 1)
    return functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _centres(side: int, like: Tensor) -> Tensor:
    """Where the centres of ``side`` pixels lie between -1 and 1."""
    return (torch.arange(side, dtype=like.dtype, device=like.device) * 2 + 1) / side - 1
