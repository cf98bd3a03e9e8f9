"""What a picture looks like from afar, in a few hundred bytes: copies of it look the same, other pictures do not."""

import math

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor
from torch.nn import functional

SIDE = 32  # pixels of the small picture that is looked at
KEPT = 16  # of its cosine waves, down and across
LENGTH = KEPT * KEPT


def picture_hash(images: UInt8[Tensor, "n c h w"]) -> Int8[Tensor, "n 256"]:
    """A perceptual hash of each picture: the lowest waves of its brightness, 16 down by 16 across, each in a byte.

    Slow waves are strong in every photograph, so each is multiplied by its frequency. The average brightness is not
    kept. A picture of one colour has a hash of zeros, which is like no other.

    Args:
        images: of any size; what an encoder sees will do.

    >>> flat = torch.full((1, 3, 8, 8), 200, dtype=torch.uint8)
    >>> picture_hash(flat).shape, int(picture_hash(flat).abs().max())
    (torch.Size([1, 256]), 0)
    """
    found = [_hash(some) for some in images.split(256)]
    return torch.cat(found) if found else torch.zeros(0, LENGTH, dtype=torch.int8)


def _hash(images: UInt8[Tensor, "n c h w"]) -> Int8[Tensor, "n 256"]:
    pixels = images.float()
    if pixels.shape[1] == 3:
        pixels = (pixels * pixels.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    small = functional.interpolate(pixels, (SIDE, SIDE), mode="area")[:, 0] / SIDE
    basis = waves((torch.arange(SIDE) + 0.5) / SIDE)
    found = (basis.T @ small @ basis) * frequencies(KEPT)
    largest = found.flatten(1).abs().amax(1).clamp_min(1.0).view(-1, 1, 1)
    return (found * (127 / largest)).round().flatten(1).to(torch.int8) * (largest[:, :, 0] > 1).to(torch.int8)


def waves(places: Float[Tensor, " m"], kept: int = KEPT) -> Float[Tensor, "m kept"]:
    """Cosine waves at places from 0 to 1, each with a mean square of 1."""
    found = torch.cos(math.pi * places.unsqueeze(1) * torch.arange(kept)) * math.sqrt(2)
    found[:, 0] = 1
    return found


def frequencies(kept: int) -> Float[Tensor, "kept kept"]:
    """Of each wave; 0 for the mean."""
    each = torch.arange(kept).float()
    return (each.unsqueeze(1).square() + each.square()).sqrt()
