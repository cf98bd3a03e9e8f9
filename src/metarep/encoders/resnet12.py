"""ResNet12: the field's larger backbone, with DropBlock."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from metarep.encoders.initialise import initialise
from metarep.errors import MetarepError
from metarep.randomness import Draws

SLOPE = 0.1
GROWTH = {"wide": (1, 2.5, 5, 10), "narrow": (1, 2, 4, 8)}


class DropBlock(Draws):
    """Drops squares of a feature map in training, and scales the rest so that the expected sum stays.

    Ghiasi et al., DropBlock, 2018. Squares lie inside the map; where the map is smaller than the square, the square
    shrinks to it.

    Args:
        rate: expected share of dropped units.
        block: side of a square.
    """

    def __init__(self, rate: float, block: int = 5) -> None:
        super().__init__()
        self.rate, self.block = rate, block

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        height, width = x.shape[-2:]
        block = min(self.block, height, width)
        places = (height - block + 1) * (width - block + 1)
        centre_rate = self.rate * height * width / (block**2 * places)
        shape = (*x.shape[:2], height - block + 1, width - block + 1)
        seeds = (torch.rand(shape, generator=self.generator) < centre_rate).to(x)
        dropped = functional.max_pool2d(functional.pad(seeds, [block - 1] * 4), block, stride=1)
        keep = 1 - dropped
        return x * keep * (keep.numel() / keep.sum().clamp_min(1))


class Residual(nn.Module):
    """Three 3x3 convolutions with a 1x1 shortcut, leaky ReLU, 2x2 max-pooling, DropBlock."""

    def __init__(self, channels: int, width: int, drop: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for step in range(3):
            layers += [
                nn.Conv2d(channels if step == 0 else width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
            ]
            layers += [nn.LeakyReLU(SLOPE)] if step < 2 else []
        self.branch = nn.Sequential(*layers)
        self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))
        self.tail = nn.Sequential(nn.LeakyReLU(SLOPE), nn.MaxPool2d(2, ceil_mode=True), DropBlock(drop))

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.branch(x) + self.shortcut(x))


class ResNet12(nn.Sequential):
    """Four residual blocks and global average pooling: 640 numbers an image by default.

    The widths 64-160-320-640 and the leaky ReLU are those of Lee et al., MetaOptNet, 2019; 64-128-256-512 is the
    narrower form of TADAM (Oreshkin et al., 2018). Papers differ by points for this alone: name it.

    Args:
        channels: of the images.
        width: channels of the first block.
        growth: ``wide`` (x1, 2.5, 5, 10) or ``narrow`` (x1, 2, 4, 8).
        drop: DropBlock's rate in the last two blocks.

    >>> ResNet12(3, width=8)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 80])
    """

    def __init__(self, channels: int, *, width: int = 64, growth: str = "wide", drop: float = 0.1) -> None:
        if growth not in GROWTH:
            raise MetarepError(f"growth {growth!r} is not one of {', '.join(GROWTH)}")
        if width < 1:
            raise MetarepError(f"width must be at least 1, not {width}")
        if not 0 <= drop < 1:
            raise MetarepError(f"drop must be at least 0 and below 1, not {drop}")
        factors = GROWTH[growth]
        blocks: list[nn.Module] = []
        for position, factor in enumerate(factors):
            blocks.append(Residual(channels, int(width * factor), drop if position >= 2 else 0.0))
            channels = int(width * factor)
        super().__init__(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        initialise(self, slope=SLOPE)
