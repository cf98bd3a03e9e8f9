"""Convolution with filters of each task's own, all tasks at once.

A map is ``n taskc h w``, channels last in memory: the channels of a task lie side by side, so that one grouped
convolution does for all tasks. With few channels in (images), where such kernels are slow, it is patches and a batched
product. Both derivatives are convolutions again, so it can be differentiated as often as one likes.

On a GPU torch lets matrix units round what goes into a float32 convolution to ten bits. Steps that build on each other
turn that into another gradient altogether (five at a rate of 0.4: cosine 0.5), so here a number goes in as two, the
second being what rounding took from the first, and three products are added. ``rough`` leaves the rounding be.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

_aten = torch.ops.aten
FEW = 8  # channels in
Map = Float[Tensor, "n taskc h w"]
Filters = Float[Tensor, "taskout c 3 3"]


def conv(x: Map, w: Filters, tasks: int, *, rough: bool = False) -> Float[Tensor, "n taskout h w"]:
    """3x3 convolution with a border of zeros, the filters of each task on its images; for autograd."""
    return _Conv.apply(x, w, tasks, rough)


def conv_back(
    d_y: Tensor, x: Map, w: Filters, tasks: int = 1, *, image: bool, rough: bool = False
) -> tuple[Tensor, Tensor]:
    """Gradients of the convolution's input (or its output, where the input is of images and has none) and filters."""
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
    """The same as ``conv`` without autograd."""
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
    """Whether torch may round what goes into the convolution, or the product that stands for it."""
    if not x.is_cuda or x.dtype != torch.float32:
        return False
    return rounding()[_by_patches(x, tasks)]


def rounding() -> tuple[bool, bool]:
    """Whether torch lets matrix units round what goes into float32 convolutions, and into matrix products."""
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    if hasattr(cudnn, "conv"):  # since 2.9; to ask the old way then may raise
        return cudnn.conv.fp32_precision == "tf32", cuda.matmul.fp32_precision == "tf32"
    return cudnn.allow_tf32, cuda.matmul.allow_tf32


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest number of ten bits (and a leading one), which no rounding changes, and what is missing."""
    first = ((x.view(torch.int32) + (1 << 12)) & -(1 << 13)).view(torch.float32)
    return first, x - first


def _filter_gradient(d_y: Float[Tensor, "n taskout h w"], x: Map, tasks: int, *, rough: bool = False) -> Filters:
    if not rough and _rounds(x, tasks):
        (d1, d2), (x1, x2) = _halves(d_y), _halves(x)
        small = _filter_gradient(d1, x2, tasks, rough=True) + _filter_gradient(d2, x1, tasks, rough=True)
        return small + _filter_gradient(d1, x1, tasks, rough=True)
    if not _by_patches(x, tasks):
        few = x.new_empty(d_y.shape[1], x.shape[1] // tasks, 3, 3)  # only its shape matters
        sizes = None, [1, 1], [1, 1], [1, 1], False, [0, 0], tasks
        return _aten.convolution_backward(d_y, x, few, *sizes, [False, True, False])[1]
    places = d_y.permute(0, 2, 3, 1).reshape(-1, tasks, d_y.shape[1] // tasks).transpose(0, 1)
    channels, columns = x.shape[1] // tasks, _patches(x, tasks)
    strips = _strips(x) if d_y.dtype != torch.bfloat16 else 1  # matrix units have a way of their own
    if strips > 1:
        places = places.reshape(tasks * strips, -1, places.shape[2])
        columns = columns.unflatten(2, (strips, -1)).transpose(1, 2).flatten(0, 1)
    product = torch.bmm(places.mT, columns.mT).unflatten(0, (tasks, strips)).sum(1)
    return product[:, :, : 9 * channels].reshape(-1, channels, 3, 3)


def _strips(x: Map) -> int:
    """Into how many parts a sum over all places is cut, for its product is too small to occupy a GPU otherwise."""
    rows = x.shape[0] * x.shape[2]
    return max(part for part in range(1, min(rows, 64) + 1) if rows % part == 0)


def _patches(x: Map, tasks: int) -> Float[Tensor, "task c9 nhw"]:
    """What each filter is laid over, and rows of zeros to a multiple of eight, which matrix units ask for."""
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
    """The filters that lead back from what came out to what came in."""
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
    """Linear in the gradient from above and in the input of the convolution."""

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
