"""Positions of patches: learned ones on a grid, resampled to any other grid; and rotations of queries and keys."""

import functools
import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Resampling = Literal["antialias", "plain", "offset"]
OFFSET = 0.1  # patches that DINOv2 adds to the new side of the grid; its features were published with it
BASE = 100.0  # longest period of a rotation, in units of half the side of the image (DINOv3)


def resampled(
    positions: Float[Tensor, "patches dim"], grid: tuple[int, int], to: tuple[int, int], how: Resampling = "antialias"
) -> Float[Tensor, "new dim"]:
    """Positions that were learned on one grid of patches, resampled (bicubic) to another grid.

    This is a product with a constant matrix for each axis, so that it can be differentiated any number of times, and is
    the same on every device.

    Args:
        positions: one row a patch, row by row of the grid.
        grid: rows and columns of patches in ``positions``.
        to: rows and columns of patches that are wanted.
        how: ``antialias`` as in timm and in DINOv2 with registers; ``plain`` without antialiasing, as in transformers;
            ``offset`` as in DINOv2 without registers, which makes the new grid a tenth of a patch larger.

    >>> resampled(torch.tensor([[0.0], [1.0]]), (1, 2), (1, 2))
    tensor([[0.],
            [1.]])
    >>> resampled(torch.ones(4, 1), (2, 2), (3, 1)).flatten()
    tensor([1., 1., 1.])
    """
    if grid == to:
        return positions
    down, across = (
        _matrix(old, new, how).to(positions.device, positions.dtype) for old, new in zip(grid, to, strict=True)
    )
    rows = torch.einsum("ab,bcd->acd", down, positions.unflatten(0, grid))
    return torch.einsum("ab,cbd->cad", across, rows).flatten(0, 1)


@functools.lru_cache(maxsize=64)
def _matrix(old: int, new: int, how: Resampling) -> Float[Tensor, "new old"]:
    """The matrix that resamples one axis: what torch makes of the unit vectors, in float64."""
    with torch.inference_mode(False), torch.device("cpu"):
        units = torch.eye(old, dtype=torch.float64).view(1, 1, old, old)
        if how == "offset" and old != new:
            scale = ((new + OFFSET) / old, 1.0)
            return functional.interpolate(units, scale_factor=scale, mode="bicubic")[0, 0]
        return functional.interpolate(units, (new, old), mode="bicubic", antialias=how == "antialias")[0, 0]


def rotation(
    grid: tuple[int, int], dim: int, like: Tensor
) -> tuple[Float[Tensor, "patches dim"], Float[Tensor, "patches dim"]]:
    """Cosine and sine of the angles by which queries and keys of each patch are rotated (RoPE).

    Su et al., RoFormer, 2021; Siméoni et al., DINOv3, 2025. A quarter of the angles belong to the row of a patch, a
    quarter to its column, and the other half are the same again. Coordinates go from -1 to 1 along each side.

    Args:
        grid: rows and columns of patches.
        dim: features of an attention head, a multiple of 4.
        like: gives the dtype and the device.

    >>> cosine, sine = rotation((1, 1), 4, torch.zeros(1))
    >>> cosine.tolist(), sine.tolist()  # a single patch is in the middle, at 0
    ([[1.0, 1.0, 1.0, 1.0]], [[0.0, 0.0, 0.0, 0.0]])
    """
    options = {"dtype": torch.promote_types(like.dtype, torch.float32), "device": like.device}
    periods = BASE ** (torch.arange(dim // 4, **options) * 4 / dim)
    rows, columns = (2 * (torch.arange(side, **options) + 0.5) / side - 1 for side in grid)
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)
    angles = (2 * math.pi * places[:, :, None] / periods).flatten(1).repeat(1, 2)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def rotate(x: Float[Tensor, "*batch patches dim"], cosine: Tensor, sine: Tensor) -> Float[Tensor, "*batch patches dim"]:
    """Rotate the queries or keys of patches by their angles; feature ``i`` is paired with ``i + dim / 2``.

    >>> quarter = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    >>> rotate(torch.tensor([[3.0, 4.0]]), *quarter)
    tensor([[-4.,  3.]])
    """
    one, other = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-other, one], dim=-1) * sine
