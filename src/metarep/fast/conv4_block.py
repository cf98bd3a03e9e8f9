"""A block of Conv4 in one or two calls of C code, in training and evaluation."""

from torch import Tensor, nn

from metarep.encoders.conv4 import Conv4, ConvBlock
from metarep.encoders.network_copies import patched
from metarep.encoders.normalisation import ExplicitNorm, follow, is_synchronised
from metarep.fast.block_tail import block_tail, compiles
from metarep.fast.first_block import first_block, fits


def run_block(block: nn.Sequential, x: Tensor) -> Tensor | None:
    """As :func:`metarep.machine.faster.conv4_block`; ``x`` is on the CPU, and its operations are not traced.

    The first block of a network runs in one C call. The other blocks run torch's convolution, then one C call. The
    other layers of the block are not called.
    """
    norm = block[1] if len(block) > 1 else None
    if isinstance(norm, ExplicitNorm):
        fast = not (norm.differentiable or norm.statistics.linked)
    else:
        fast = isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None
    if not fast or any(map(patched, block)) or not usual(block):
        return None
    convolution, norm, *rest = block
    filters = convolution.weight
    assert isinstance(filters, Tensor)
    assert isinstance(norm, ExplicitNorm | nn.BatchNorm2d)
    assert norm.weight is not None
    assert norm.bias is not None
    across = norm.training and is_synchronised() and not isinstance(norm, ExplicitNorm)
    if fits(x, filters):
        given, rows = _whose(norm, x)
        result = first_block(x, filters, norm.weight, norm.bias, norm.eps, rows, given, across=across)
    else:
        y = convolution(x)
        if not compiles(y):
            for layer in (norm, *rest):
                y = layer(y)
            return y
        given, rows = _whose(norm, y)
        result = block_tail(y, norm.weight, norm.bias, norm.eps, rows, given, across=across)
    if isinstance(norm, ExplicitNorm):
        if given is None:
            norm.statistics.keep(result.mean, result.variance)
    elif given is None:
        follow(norm, result.mean, result.variance, result.pixels)
    return result.z


def _whose(norm: nn.Module, x: Tensor) -> tuple[tuple[Tensor, Tensor] | None, int | None]:
    """Returns the statistics that a norm uses, or the number of leading images that it computes them from."""
    if isinstance(norm, ExplicitNorm):
        return norm.statistics.take(x)
    return None if norm.training else (norm.get_buffer("running_mean"), norm.get_buffer("running_var")), None


def usual(block: nn.Sequential) -> bool:
    """Returns whether a block is exactly a 3x3 convolution, a norm with scale and shift, 2x2 max-pooling and a ReLU."""
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
    """Returns whether a body is an unchanged Conv4 of four equal widths: no other layer, epsilon, hook or forward."""
    if type(body) is not Conv4 or len(set(body.widths)) != 1 or len(body.widths) != 4:
        return False
    if any(map(patched, body.modules())):
        return False
    *blocks, last = body
    same = type(last) is nn.Flatten and all(type(block) is ConvBlock and usual(block) for block in blocks)
    return same and len({block[1].eps for block in blocks}) == 1  # pyright: ignore[reportIndexIssue]
