"""Pictures that stand in a model twice: they would vouch for each other when one of them is left out."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional

NEAR = 0.9999  # cosine of the features: what is not as near as this is no copy, and is not looked at
ROWS = 256  # compared at a time


def find_repeats(
    images: Sequence[UInt8[Tensor, "c h w"]],
    features: Float[Tensor, "n dim"],
    known: Sequence[Path],
    known_features: Float[Tensor, "m dim"],
) -> list[int | None]:
    """For each image the place of an earlier one with the same pixels: of the known ones first, then of these.

    Args:
        images: new ones, as the encoder sees them.
        features: theirs.
        known: files of what the encoder saw of older ones; those that are gone are not compared.
        known_features: theirs.

    Returns:
        Places below ``m`` are known images, those from ``m`` on are new ones.
    """
    both = functional.normalize(torch.cat([known_features, features]) if len(known) else features, dim=-1)

    @cache
    def content(place: int) -> bytes | None:
        if place >= len(known):
            return images[place - len(known)].permute(1, 2, 0).numpy().tobytes()
        return np.asarray(Image.open(known[place])).tobytes() if known[place].is_file() else None

    found: list[int | None] = []
    for start in range(0, len(images), ROWS):
        near = both[len(known) :][start : start + ROWS] @ both.mT >= NEAR
        for place, like in enumerate(near, len(known) + start):
            earlier = like[:place].nonzero().flatten().tolist()
            found.append(next((each for each in earlier if content(each) == content(place)), None))
    return found
