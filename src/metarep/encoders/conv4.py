"""Conv4: four convolution blocks, the usual small backbone of few-shot learning."""

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from metarep.encoders.eager import eager_on_cpu
from metarep.encoders.initialise import initialise
from metarep.errors import MetarepError
from metarep.machine import faster

MOST = 16  # blocks


class Conv4(nn.Sequential):
    """Four blocks of 3x3 convolution, batch normalisation, ReLU and 2x2 max-pooling, then flattened.

    With 64 channels the representation has 64 numbers at 28 px and 1,600 at 84 px. Pooling comes before the ReLU: both
    are monotone, so the values are the same, and the ReLU then processes a quarter of them.

    Vinyals et al., Matching Networks for One Shot Learning, 2016; Snell et al., Prototypical Networks, 2017.

    Args:
        channels: channels of the images.
        width: channels of every block; 64 in most papers, 32 in MAML's miniImageNet experiments.
        length: Euclidean length that every representation is scaled to; 0 to leave it as it is. With a fixed length,
            Euclidean class means compare directions as cosines do, and the inner loop cannot use its fastest path.
        average: the last block does not pool, and its map is averaged, so the representation has ``width`` numbers at
            every size (the Conv4 of Tian et al., Rethinking Few-Shot Image Classification, 2020). The inner loop cannot
            use its fastest path.
        widths: channels of each block, such as ``[64, 64, 128, 128, 128]`` for five blocks. They replace ``width``, and
            the inner loop cannot use its fastest path.

    Raises:
        MetarepError: ``width`` or one of ``widths`` is below 1, there are more than 16 of them, or ``length`` is
            negative, NaN or infinite.

    >>> import torch
    >>> Conv4(1)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 64])
    >>> Conv4(1, length=2.0)(torch.rand(1, 1, 28, 28)).norm().round().item()
    2.0
    >>> Conv4(3, average=True)(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 64])
    >>> Conv4(1, widths=[64, 64, 128, 128, 128])(torch.zeros(2, 1, 42, 42)).shape
    torch.Size([2, 128])
    """

    def __init__(
        self,
        channels: int,
        *,
        width: int = 64,
        length: float = 0.0,
        average: bool = False,
        widths: Sequence[int] = (),
    ) -> None:
        if width < 1:
            raise MetarepError(f"width must be at least 1, not {width}")
        if len(widths) > MOST or min(widths, default=1) < 1:
            raise MetarepError(f"widths are up to {MOST} numbers of at least 1, not {list(widths[: MOST + 1])}")
        if not 0 <= length < math.inf:
            raise MetarepError(f"length must be at least 0 and finite, not {length:g}")
        each = tuple(widths) or (width,) * 4
        blocks = []
        for number, wide in enumerate(each, 1):
            convolution = nn.Conv2d(channels, wide, 3, padding=1, bias=False)
            pool = [] if average and number == len(each) else [nn.MaxPool2d(2)]
            blocks.append(ConvBlock(convolution, nn.BatchNorm2d(wide), *pool, nn.ReLU()))
            channels = wide
        last = [nn.AdaptiveAvgPool2d(1)] if average else []
        super().__init__(*blocks, *last, nn.Flatten(), *([OfLength(length)] if length else []))
        initialise(self)
        self.widths, self.average = each, average

    def dim_at(self, size: tuple[int, int]) -> int:
        """The number of features of an image of this size."""
        height, width = (side // 2 ** len(self.widths) for side in size)
        return self.widths[-1] * (1 if self.average else height * width)


class OfLength(nn.Module):
    """Scales rows to one Euclidean length; rows of zeros stay."""

    def __init__(self, length: float) -> None:
        super().__init__()
        self.length = length

    def forward(self, x: Tensor) -> Tensor:
        return self.length * functional.normalize(x, dim=-1)


class ConvBlock(nn.Sequential):
    """A block of convolution, norm, pooling and ReLU, run layer by layer or by C code where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        z = faster.conv4_block(self, x) if eager_on_cpu(x) else None
        return super().forward(x) if z is None else z
