"""Draws: the random parameters of the views of a batch, drawn on the CPU before any pixel is read."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor


@dataclass(frozen=True)
class Draws:
    """The random parameters of one view of each of ``n`` images. A parameter is None where its transform is off.

    Args:
        matrix: the affine map from positions in the view to positions in the image. Coordinates are from -1 to 1
            across the image.
        colour: factors of brightness, contrast and saturation, and the rotation of the hue in radians. An image that
            keeps its colours has 1, 1, 1, 0. One that becomes grey has saturation 0.
        sigma: standard deviation of the blur in pixels; 0 for an image that stays sharp.
        inverted: whether the image is solarised.
        centre: the centre of the cut-out square, down and across, as shares of the sides of the image.
    """

    matrix: Float[Tensor, "n 2 3"]
    colour: Float[Tensor, "n 4"] | None = None
    sigma: Float[Tensor, " n"] | None = None
    inverted: Bool[Tensor, " n"] | None = None
    centre: Float[Tensor, "n 2"] | None = None

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def move_only(self) -> bool:
        """Whether the affine map is the only transform."""
        return all(each is None for each in (self.colour, self.sigma, self.inverted, self.centre))

    def __getitem__(self, part: slice | Int[Tensor, " m"]) -> "Draws":
        """The parameters of some of the images; an index may name an image several times."""
        fields = (self.matrix, self.colour, self.sigma, self.inverted, self.centre)
        return Draws(*(None if field is None else field[part] for field in fields))  # pyright: ignore[reportArgumentType]


def draw_colour(
    n: int, generator: Generator, spans: tuple[float, float, float, float], jitter: float, grey: float
) -> Float[Tensor, "n 4"]:
    """Draw the colour parameters of ``n`` images, as in :class:`Draws`.

    Args:
        n: the number of images.
        generator: a CPU generator.
        spans: the largest change of brightness, contrast and saturation from 1, and of the hue from 0. The hue is a
            share of the circle.
        jitter: probability that the colours of an image change at all.
        grey: probability that its saturation becomes 0.
    """
    draw = torch.rand(6, n, generator=generator)
    middle, reach = torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.tensor([*spans[:3], spans[3] * 2 * math.pi])
    low, high = middle - reach, middle + reach
    low[:3].clamp_min_(0)
    drawn = low + (high - low) * draw[:4].T
    colour = torch.where((draw[4] < jitter).unsqueeze(1), drawn, middle)
    colour[:, 2].masked_fill_(draw[5] < grey, 0)
    return colour


def draw_sigma(n: int, generator: Generator, share: float, span: tuple[float, float]) -> Float[Tensor, " n"]:
    """Draw the standard deviation of the blur of ``n`` images, in pixels.

    Args:
        n: the number of images.
        generator: a CPU generator.
        share: probability that an image is blurred; the others get 0.
        span: the smallest and the largest standard deviation.
    """
    draw = torch.rand(2, n, generator=generator)
    return torch.where(draw[0] < share, span[0] + (span[1] - span[0]) * draw[1], 0)
