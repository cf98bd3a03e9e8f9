"""Conv4: the field's small backbone, four convolution blocks."""

import math

from torch import Tensor, nn
from torch.nn import functional

from metarep.encoders.eager import eager_on_cpu
from metarep.encoders.initialise import initialise
from metarep.errors import MetarepError
from metarep.machine import faster


class Conv4(nn.Sequential):
    """Four blocks of 3x3 convolution, batch normalisation, ReLU and 2x2 max-pooling, then flattened.

    At 28 px with 64 channels the representation has 64 numbers, at 84 px 1,600. Pooling is put before the ReLU: both
    are monotone, so the values are the same, and the ReLU then touches a quarter of them.

    Vinyals et al., Matching Networks for One Shot Learning, 2016; Snell et al., Prototypical Networks, 2017.

    Args:
        channels: of the images.
        width: channels of every block; 64 in most papers, 32 in MAML's miniImageNet.
        length: of every representation; 0 for whatever it has. With one, Euclidean class means compare directions as
            cosines do, and the inner loop takes the slower of its ways.

    >>> import torch
    >>> Conv4(1)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 64])
    """

    def __init__(self, channels: int, *, width: int = 64, length: float = 0.0) -> None:
        if width < 1:
            raise MetarepError(f"width must be at least 1, not {width}")
        if not 0 <= length < math.inf:
            raise MetarepError(f"length must be 0 or a number above it, not {length:g}")
        blocks = []
        for _ in range(4):
            convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            blocks.append(ConvBlock(convolution, nn.BatchNorm2d(width), nn.MaxPool2d(2), nn.ReLU()))
            channels = width
        super().__init__(*blocks, nn.Flatten(), *([OfLength(length)] if length else []))
        initialise(self)


class OfLength(nn.Module):
    """Rows scaled to one length; rows of zeros stay."""

    def __init__(self, length: float) -> None:
        super().__init__()
        self.length = length

    def forward(self, x: Tensor) -> Tensor:
        return self.length * functional.normalize(x, dim=-1)


class ConvBlock(nn.Sequential):
    """Convolution, norm, pooling and ReLU, one after another, or together where that is possible and faster."""

    def forward(self, x: Tensor) -> Tensor:
        z = faster.conv4_block(self, x) if eager_on_cpu(x) else None
        return super().forward(x) if z is None else z
