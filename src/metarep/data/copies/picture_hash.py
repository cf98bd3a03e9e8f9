"""Perceptual hash: describes a picture in a few hundred bytes that change little when the picture is copied."""

import math

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor
from torch.nn import functional

SIDE = 32  # pixels: each picture is scaled to this height and width first
BRIGHT, COLOUR = 16, 6  # cosine coefficients of brightness and of each colour that are kept, down and across
LENGTH = BRIGHT * BRIGHT + 2 * COLOUR * COLOUR
FLAT = 1.0  # standard deviation in grey levels: a picture that varies less counts as one of a single colour
SHADES = 2.0  # steps of a byte for each level of colour
Hashes = Int8[Tensor, "n 328"]


def picture_hash(images: UInt8[Tensor, "n c h w"]) -> Hashes:
    """Compute a perceptual hash of each picture: its lowest cosine coefficients (DCT), one byte for each.

    There are 256 coefficients of brightness and 72 of colour. Low frequencies are strong in every photograph, so each
    coefficient of brightness is multiplied by its frequency. The 256 are then scaled to fill their bytes, so contrast
    does not matter. The mean brightness is not kept. A picture of a single colour has a hash of zeros, and it matches
    no other picture.

    Args:
        images: pictures of any size; the input size of an encoder is enough. One channel is grey.

    >>> flat = torch.full((1, 3, 8, 8), 200, dtype=torch.uint8)
    >>> picture_hash(flat).shape, int(picture_hash(flat).abs().max())
    (torch.Size([1, 328]), 0)
    """
    return torch.cat([_hash(some) for some in images.split(256)]) if len(images) else torch.zeros(0, LENGTH).char()


def brightness(hashes: Hashes) -> Float[Tensor, "n 16 16"]:
    """The cosine coefficients of brightness, each multiplied by its frequency, and scaled to at most 127."""
    return hashes[:, : BRIGHT * BRIGHT].unflatten(1, (BRIGHT, BRIGHT)).float()


def colour(hashes: Hashes) -> Float[Tensor, "n 2 6 6"]:
    """The cosine coefficients of blueness and of redness (chroma of YCbCr), in levels of 0 to 255."""
    return hashes[:, BRIGHT * BRIGHT :].unflatten(1, (2, COLOUR, COLOUR)).float() / SHADES


def waves(points: Float[Tensor, " m"], kept: int) -> Float[Tensor, "m kept"]:
    """The first ``kept`` cosine waves at points from 0 to 1, each with a mean square of 1."""
    values = torch.cos(math.pi * points.unsqueeze(1) * torch.arange(kept)) * math.sqrt(2)
    values[:, 0] = 1
    return values


def frequencies(kept: int) -> Float[Tensor, "kept kept"]:
    """The frequency of each two-dimensional cosine wave, in half periods for each picture; 0 for the mean.

    >>> frequencies(2)
    tensor([[0.0000, 1.0000],
            [1.0000, 1.4142]])
    """
    line = torch.arange(kept).float()
    return (line.unsqueeze(1).square() + line.square()).sqrt()


def centres(n: int) -> Float[Tensor, " n"]:
    """The centres of ``n`` equal parts of the interval from 0 to 1.

    >>> centres(2)
    tensor([0.2500, 0.7500])
    """
    return (torch.arange(n) + 0.5) / n


def _hash(images: UInt8[Tensor, "n c h w"]) -> Hashes:
    """The hashes of a few pictures, computed at once."""
    small = functional.interpolate(images.float(), (SIDE, SIDE), mode="area")
    red, green, blue = small.unbind(1) if small.shape[1] == 3 else small.expand(-1, 3, -1, -1).unbind(1)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    basis = waves(centres(SIDE), BRIGHT)
    bright = basis.T @ grey @ basis / SIDE**2
    bright[:, 0, 0] = 0
    flat = bright.square().sum((1, 2)) < FLAT**2
    bright = bright * frequencies(BRIGHT)
    bright = bright * (127 / bright.abs().amax((1, 2), keepdim=True).clamp_min(1e-6))
    bright[flat] = 0
    basis = basis[:, :COLOUR].clone()
    tones = torch.stack([0.564 * (blue - grey), 0.713 * (red - grey)], 1)
    tones = (basis.T @ tones @ basis / SIDE**2 * SHADES).clamp(-127, 127)
    return torch.cat([bright.flatten(1), tones.masked_fill(flat.view(-1, 1, 1, 1), 0).flatten(1)], 1).round().char()
