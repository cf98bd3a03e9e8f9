"""Conv4: the field's small backbone, four convolution blocks."""

import math

from torch import Tensor, nn
from torch.nn import functional

from metarep.encoders.block import plain
from metarep.encoders.block_tail import block_tail, compiles
from metarep.encoders.first_block import first_block, fits
from metarep.encoders.initialise import initialise
from metarep.errors import MetarepError
from metarep.network_copies import patched
from metarep.normalisation import ExplicitNorm, follow


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
    """Convolution, norm, pooling, ReLU: one after another, or together where that is possible and faster.

    On a processor a network's first block runs in one go, and in the others what follows the convolution does. Layers
    are then not called; if one of them has a hook, or a forward of its own, all are.
    """

    def forward(self, x: Tensor) -> Tensor:
        convolution, norm, *rest = self
        if isinstance(norm, ExplicitNorm):
            fast = not (norm.differentiable or norm.statistics.linked)
        elif isinstance(norm, nn.BatchNorm2d):
            fast = norm.running_mean is not None
        else:
            return super().forward(x)
        if not fast or not plain(x) or any(map(patched, self)) or not usual(self):
            return super().forward(x)
        filters = convolution.weight
        assert isinstance(filters, Tensor)
        assert norm.weight is not None
        assert norm.bias is not None
        if fits(x, filters):
            given, rows = _whose(norm, x)
            block = first_block(x, filters, norm.weight, norm.bias, norm.eps, rows, given)
        else:
            y = convolution(x)
            if not compiles(y):
                for layer in (norm, *rest):
                    y = layer(y)
                return y
            given, rows = _whose(norm, y)
            block = block_tail(y, norm.weight, norm.bias, norm.eps, rows, given)
        if isinstance(norm, ExplicitNorm):
            if given is None:
                norm.statistics.keep(block.mean, block.variance)
        elif given is None:
            follow(norm, block.mean, block.variance, x.numel() // x.shape[1])
        return block.z


def _whose(norm: nn.Module, x: Tensor) -> tuple[tuple[Tensor, Tensor] | None, int | None]:
    """The statistics that a norm is to use, or of how many leading images."""
    if isinstance(norm, ExplicitNorm):
        return norm.statistics.take(x)
    return None if norm.training else (norm.get_buffer("running_mean"), norm.get_buffer("running_var")), None


def usual(block: nn.Sequential) -> bool:
    """Whether a block is a 3x3 convolution, a norm with scale and shift, a 2x2 maximum and a ReLU, and nothing else."""
    layers = list(block)
    if len(layers) != 4:
        return False
    convolution, norm, pool, last = layers
    return (
        type(convolution) is nn.Conv2d
        and (convolution.kernel_size, convolution.stride, convolution.dilation) == ((3, 3), (1, 1), (1, 1))
        and (convolution.padding, convolution.padding_mode, convolution.groups) == ((1, 1), "zeros", 1)
        and convolution.bias is None
        and type(norm) in (nn.BatchNorm2d, ExplicitNorm)
        and norm.weight is not None
        and norm.bias is not None
        and type(pool) is nn.MaxPool2d
        and (pool.kernel_size, pool.stride, pool.padding, pool.dilation) == (2, 2, 0, 1)
        and not (pool.ceil_mode or pool.return_indices)
        and type(last) is nn.ReLU
    )


def as_made(body: nn.Module) -> bool:
    """Whether a body is a Conv4 into which nobody has put another layer or epsilon, a hook or another forward."""
    if type(body) is not Conv4 or any(map(patched, body.modules())):
        return False
    *blocks, last = body
    same = type(last) is nn.Flatten and all(type(block) is ConvBlock and usual(block) for block in blocks)
    return same and len({block[1].eps for block in blocks}) == 1  # pyright: ignore[reportIndexIssue]
