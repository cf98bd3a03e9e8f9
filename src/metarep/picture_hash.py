"""What a picture looks like from afar, in a few hundred bytes: its copies look the same, other pictures do not."""

import math

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor
from torch.nn import functional

SIDE = 32  # pixels of the small picture that is looked at
BRIGHT, COLOUR = 16, 6  # of its cosine waves, down and across
LENGTH = BRIGHT * BRIGHT + 2 * COLOUR * COLOUR
FLAT = 1.0  # grey levels: what varies less is a picture of one colour, and says nothing
SHADES = 2.0  # steps of a byte for a level of colour
Hashes = Int8[Tensor, "n 328"]


def picture_hash(images: UInt8[Tensor, "n c h w"]) -> Hashes:
    """A perceptual hash of each picture: its lowest cosine waves, a byte each, 256 of brightness and 72 of colour.

    Slow waves are strong in every photograph, so each of brightness is multiplied by its frequency; all are then scaled
    to fill their bytes, so contrast does not matter, and the average brightness is not kept. A picture of one colour
    has a hash of zeros, which is like no other.

    Args:
        images: of any size; what an encoder sees will do. One channel is grey.

    >>> flat = torch.full((1, 3, 8, 8), 200, dtype=torch.uint8)
    >>> picture_hash(flat).shape, int(picture_hash(flat).abs().max())
    (torch.Size([1, 328]), 0)
    """
    return torch.cat([_hash(some) for some in images.split(256)]) if len(images) else torch.zeros(0, LENGTH).char()


def brightness(hashes: Hashes) -> Float[Tensor, "n 16 16"]:
    """Waves of brightness, each times its frequency."""
    return hashes[:, : BRIGHT * BRIGHT].unflatten(1, (BRIGHT, BRIGHT)).float()


def colour(hashes: Hashes) -> Float[Tensor, "n 2 6 6"]:
    """Waves of blueness and redness, in levels."""
    return hashes[:, BRIGHT * BRIGHT :].unflatten(1, (2, COLOUR, COLOUR)).float() / SHADES


def waves(places: Float[Tensor, " m"], kept: int) -> Float[Tensor, "m kept"]:
    """Cosine waves at places from 0 to 1, each with a mean square of 1."""
    found = torch.cos(math.pi * places.unsqueeze(1) * torch.arange(kept)) * math.sqrt(2)
    found[:, 0] = 1
    return found


def frequencies(kept: int) -> Float[Tensor, "kept kept"]:
    """Of each wave, in half turns a picture; 0 for the mean."""
    each = torch.arange(kept).float()
    return (each.unsqueeze(1).square() + each.square()).sqrt()


def centres(n: int) -> Float[Tensor, " n"]:
    """The middles of ``n`` equal parts of 0 to 1."""
    return (torch.arange(n) + 0.5) / n


def _hash(images: UInt8[Tensor, "n c h w"]) -> Hashes:
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
