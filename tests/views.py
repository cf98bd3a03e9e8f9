"""Made-up photographs, draws without randomness, and the way to Pillow and back: for the tests of views."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

from metarep.data.augment import Draws


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def photos(n: int = 1, side: int = 24, low: int = 70, high: int = 150, seed: int = 0) -> Tensor:
    """Noise of muted colours, which no jitter here drives out of 0 to 255."""
    return torch.randint(low, high, (n, 3, side, side), dtype=torch.uint8, generator=seeded(seed))


def still(n: int = 1, **random: Any) -> Draws:
    return Draws(torch.eye(2, 3).repeat(n, 1, 1), **random)


def pillow(x: Tensor) -> Image.Image:
    return Image.fromarray(x[0].permute(1, 2, 0).numpy())


def tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).unsqueeze(0) / 255
