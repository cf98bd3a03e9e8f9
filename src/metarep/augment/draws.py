"""Draws: what is random about the views of a batch, on the CPU, apart from its pixels."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor


@dataclass(frozen=True)
class Draws:
    """The parameters of one view of each of ``n`` images; None where a transform is off.

    Args:
        matrix: from places in the view to places in the image, in units of -1 to 1.
        colour: factors of brightness, contrast and saturation, and the turn of the hue in radians; 1, 1, 1, 0 for an
            image that keeps its colours, saturation 0 for one that becomes grey.
        sigma: standard deviation of the blur in pixels; 0 for an image that stays sharp.
        inverted: whether the image is solarised.
        centre: of the square cut out, down and across, as shares of the sides.
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
        """Whether pixels move and nothing else changes."""
        return all(each is None for each in (self.colour, self.sigma, self.inverted, self.centre))

    def __getitem__(self, part: slice) -> "Draws":
        """The draws of some of the images."""
        fields = (self.matrix, self.colour, self.sigma, self.inverted, self.centre)
        return Draws(*(None if field is None else field[part] for field in fields))  # pyright: ignore[reportArgumentType]


def draw_colour(
    n: int, generator: Generator, spans: tuple[float, float, float, float], jitter: float, grey: float
) -> Float[Tensor, "n 4"]:
    """Factors and turns as in :class:`Draws`.

    Args:
        n: images.
        generator: for their draws.
        spans: of brightness, contrast and saturation about 1; of the hue about 0, as a share of the circle.
        jitter: probability that an image gets any of the four.
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
    """Standard deviations of the blur, evenly from ``span``; 0 for all but a ``share`` of the images."""
    draw = torch.rand(2, n, generator=generator)
    return torch.where(draw[0] < share, span[0] + (span[1] - span[0]) * draw[1], 0)
