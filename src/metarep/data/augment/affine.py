"""Geometric augmentation: rotation, scale, shear, shift, crop and flip as one random affine map for each image."""

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor


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
    """Draw for each image the affine map from positions in the view to positions in the image.

    What is drawn, and in which order, must never change: resuming and reproducing a run depend on it.

    Args:
        n: the number of images.
        generator: a CPU generator.
        aspect: width over height of the images.
        rotate, scale, shear, shift, crop, ratio, flip: see :class:`metarep.data.augment.Augment`.

    Returns:
        Matrices that map ``(x, y, 1)`` to ``(x, y)``. Coordinates are from -1 to 1 across the image.
    """
    draw = torch.rand(10, n, generator=generator)
    turn, slant, move = math.radians(rotate), math.radians(shear), 2 * shift
    spans = [(-turn, turn), scale, (-slant, slant), (-slant, slant), (-move, move), (-move, move)]
    spans += [crop or (1, 1), (math.log(ratio[0]), math.log(ratio[1]))]
    low, high = torch.tensor(spans).T.unsqueeze(2)
    values = torch.lerp(low, high, draw[:8])
    linear = _turned(values[0], values[2:4].tan()) / values[1]  # (row, column, n), which is fast for many images
    if aspect != 1:
        linear *= torch.tensor([[1.0, 1 / aspect], [aspect, 1.0]]).unsqueeze(2)
    offset = values[4:6]
    if crop is not None:
        area, proportion = values[6], values[7].exp()
        sides = torch.stack([area * proportion, area / proportion]).sqrt_().clamp_max_(1)
        offset = torch.addcmul(offset, 1 - sides, draw[8:10] * 2 - 1)
        linear *= sides
    if flip:
        linear[:, 0] *= torch.where(torch.rand(n, generator=generator) < flip, -1.0, 1.0)
    return torch.cat([linear, offset.unsqueeze(1)], dim=1).permute(2, 0, 1)


def _turned(turn: Float[Tensor, " n"], slant: Float[Tensor, "2 n"]) -> Float[Tensor, "2 2 n"]:
    """The product of a rotation and a shear, one for each angle.

    Args:
        turn: angles of rotation, in radians.
        slant: tangents of the two shear angles.
    """
    cos, sin = turn.cos(), turn.sin()
    x, y = torch.stack([cos, sin]), torch.stack([-sin, cos])
    return torch.stack([torch.addcmul(x, y, slant[1]), torch.addcmul(y, x, slant[0])], dim=1)
