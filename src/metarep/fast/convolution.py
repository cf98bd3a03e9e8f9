"""Convolution of many tasks at once, where each task has its own filters.

A map is ``n taskc h w``, channels last in memory. The channels of a task are adjacent, so one grouped convolution runs
all tasks. For few input channels (images) grouped kernels are slow, so patches and a batched product are used. Both
derivatives are convolutions again, so this one can be differentiated any number of times.

On a GPU torch lets matrix units round the inputs of a float32 convolution to ten bits (TF32). Over several inner steps
the error grows until the gradient is wrong (five steps at a rate of 0.4: cosine 0.5). So each number is split into two,
its rounded value and the rest, and three products are added. ``rough`` accepts the rounding instead.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

_aten = torch.ops.aten
FEW = 8  # input channels
Map = Float[Tensor, "n taskc h w"]
Filters = Float[Tensor, "taskout c 3 3"]


def conv(x: Map, w: Filters, tasks: int, *, rough: bool = False) -> Float[Tensor, "n taskout h w"]:
    """Returns the 3x3 convolution of each task's images with its filters, zero-padded, differentiable by autograd."""
    return _Conv.apply(x, w, tasks, rough)


def conv_back(
    d_y: Tensor, x: Map, w: Filters, tasks: int = 1, *, image: bool, rough: bool = False
) -> tuple[Tensor, Tensor]:
    """Returns the gradients of the convolution's input and filters.

    Without ``image`` the input are images without a gradient, and the first value is ``d_y`` itself.
    """
    if not rough and _rounds(x, tasks):
        (d1, d2), (x1, x2), (w1, w2) = (_halves(each) for each in (d_y, x, w))
        parts = (d1, x2, w2), (d2, x1, w1), (d1, x1, w1)
        small, other, large = (conv_back(*part, tasks, image=image, rough=True) for part in parts)
        return small[0] + other[0] + large[0] if image else d_y, small[1] + other[1] + large[1]
    if _by_patches(x, tasks):
        below = convolve(d_y, _backwards(w, tasks), tasks, rough=rough) if image else d_y
        return below, _filter_gradient(d_y, x, tasks, rough=rough)
    sizes = None, [1, 1], [1, 1], [1, 1], False, [0, 0], tasks
    d_x, d_w, _ = _aten.convolution_backward(d_y, x, w, *sizes, [image, True, False])
    return d_x if image else d_y, d_w


def convolve(x: Map, w: Filters, tasks: int = 1, *, rough: bool = False) -> Float[Tensor, "n taskout h w"]:
    """Returns the same as :func:`conv`, without autograd."""
    if not rough and _rounds(x, tasks):
        (x1, x2), (w1, w2) = _halves(x), _halves(w)
        small = convolve(x1, w2, tasks, rough=True).add_(convolve(x2, w1, tasks, rough=True))
        return small.add_(convolve(x1, w1, tasks, rough=True))
    if not _by_patches(x, tasks):
        x, w = (each.contiguous(memory_format=torch.channels_last) for each in (x, w))
        return functional.conv2d(x, w, padding=1, groups=tasks)
    columns = _patches(x, tasks)
    n, _, height, width = x.shape
    out = len(w) // tasks
    flat = functional.pad(w.reshape(tasks, out, -1), (0, columns.shape[1] - w[0].numel()))
    y = x.new_empty(n * height * width, tasks, out)
    torch.bmm(columns.mT, flat.mT, out=y.transpose(0, 1))
    return y.view(n, height, width, -1).permute(0, 3, 1, 2)


def _by_patches(x: Map, tasks: int) -> bool:
    return tasks > 1 and x.shape[1] < FEW * tasks


def _rounds(x: Tensor, tasks: int) -> bool:
    """Returns whether torch may round the inputs of the convolution, or of the product that replaces it."""
    if not x.is_cuda or x.dtype != torch.float32:
        return False
    return rounding()[_by_patches(x, tasks)]


def rounding() -> tuple[bool, bool]:
    """Returns whether torch may round (TF32) the inputs of float32 convolutions, and of float32 matrix products."""
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    if hasattr(cudnn, "conv"):  # since torch 2.9, where reading the old settings may raise
        return cudnn.conv.fp32_precision == "tf32", cuda.matmul.fp32_precision == "tf32"
    return cudnn.allow_tf32, cuda.matmul.allow_tf32


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Splits numbers into two: rounded to ten mantissa bits, which TF32 represents exactly, and the remainder."""
    first = ((x.view(torch.int32) + (1 << 12)) & -(1 << 13)).view(torch.float32)
    return first, x - first


def _filter_gradient(d_y: Float[Tensor, "n taskout h w"], x: Map, tasks: int, *, rough: bool = False) -> Filters:
    if not rough and _rounds(x, tasks):
        (d1, d2), (x1, x2) = _halves(d_y), _halves(x)
        small = _filter_gradient(d1, x2, tasks, rough=True) + _filter_gradient(d2, x1, tasks, rough=True)
        return small + _filter_gradient(d1, x1, tasks, rough=True)
    if not _by_patches(x, tasks):
        few = x.new_empty(d_y.shape[1], x.shape[1] // tasks, 3, 3)  # only the shape is used
        sizes = None, [1, 1], [1, 1], [1, 1], False, [0, 0], tasks
        return _aten.convolution_backward(d_y, x, few, *sizes, [False, True, False])[1]
    pixels = d_y.permute(0, 2, 3, 1).reshape(-1, tasks, d_y.shape[1] // tasks).transpose(0, 1)
    channels, columns = x.shape[1] // tasks, _patches(x, tasks)
    strips = _strips(x) if d_y.dtype != torch.bfloat16 else 1  # bfloat16 kernels split the sum themselves
    if strips > 1:
        pixels = pixels.reshape(tasks * strips, -1, pixels.shape[2])
        columns = columns.unflatten(2, (strips, -1)).transpose(1, 2).flatten(0, 1)
    product = torch.bmm(pixels.mT, columns.mT).unflatten(0, (tasks, strips)).sum(1)
    return product[:, :, : 9 * channels].reshape(-1, channels, 3, 3)


def _strips(x: Map) -> int:
    """Returns the number of parts of a sum over all pixels. One matrix product would be too small to occupy a GPU."""
    rows = x.shape[0] * x.shape[2]
    return max(part for part in range(1, min(rows, 64) + 1) if rows % part == 0)


def _patches(x: Map, tasks: int) -> Float[Tensor, "task c9 nhw"]:
    """Returns the 3x3 patches as columns, with rows of zeros up to a multiple of eight, as matrix units need."""
    n, channels, height, width = x.shape
    channels //= tasks
    around = functional.pad(x, (1, 1, 1, 1))
    image, channel, row, column = around.stride()
    shape = tasks, channels, 3, 3, n, height, width
    windows = around.as_strided(shape, (channels * channel, channel, row, column, image, row, column))
    columns = x.new_zeros(tasks, -(-9 * channels // 8) * 8, n * height * width)
    columns[:, : 9 * channels].view(shape).copy_(windows)
    return columns


def _backwards(w: Filters, tasks: int) -> Float[Tensor, "taskc out 3 3"]:
    """Returns the filters of the transposed convolution, from the output back to the input."""
    return w.unflatten(0, (tasks, -1)).flip(3, 4).transpose(1, 2).flatten(0, 1)


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, tasks: int, rough: bool) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(x, w)
        ctx.tasks, ctx.rough = tasks, rough
        return convolve(x, w, tasks, rough=rough)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # noqa: ANN401
        x, w = ctx.saved_tensors
        of_x, of_w, *_ = ctx.needs_input_grad
        below = conv(above, _backwards(w, ctx.tasks), ctx.tasks, rough=ctx.rough) if of_x else None
        return below, _FilterGradient.apply(above, x, ctx.tasks, ctx.rough) if of_w else None, None, None


class _FilterGradient(torch.autograd.Function):
    """The gradient of the filters: linear in the output's gradient and in the convolution's input."""

    @staticmethod
    def forward(ctx: Any, above: Tensor, x: Tensor, tasks: int, rough: bool) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(above, x)
        ctx.tasks, ctx.rough = tasks, rough
        return _filter_gradient(above, x, tasks, rough=rough)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # noqa: ANN401
        above, x = ctx.saved_tensors
        of_above, of_x, *_ = ctx.needs_input_grad
        first = conv(x, g, ctx.tasks, rough=ctx.rough) if of_above else None
        second = conv(above, _backwards(g, ctx.tasks), ctx.tasks, rough=ctx.rough) if of_x else None
        return first, second, None, None
