"""Convolution with filters of each task's own, all tasks at once: patches and one batched product.

A map is ``task channel image row column``: next to each other lies what one channel of a task's images holds, which is
what the statistics of a norm are taken of, and the product writes it so. As one grouped convolution, which is what
``vmap`` makes of it, the same takes many times as long on a GPU. Both derivatives are again such products, so it can be
differentiated as often as one likes.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Maps = Float[Tensor, "task c n h w"]
Filters = Float[Tensor, "task out c 3 3"]


def conv(x: Maps, w: Filters) -> Float[Tensor, "task out n h w"]:
    """3x3 convolution with a border of zeros, the filters of each task on its images."""
    return _Conv.apply(x, w)


def patches(x: Maps) -> Float[Tensor, "task c*9 n*h*w"]:
    """What each filter is laid over, a copy nine times as large."""
    tasks, channels, images, height, width = x.shape
    around = functional.pad(x, (1, 1, 1, 1))
    task, channel, image, row, column = around.stride()
    shape = tasks, channels, 3, 3, images, height, width
    windows = around.as_strided(shape, (task, channel, row, column, image, row, column))
    return windows.reshape(tasks, channels * 9, images * height * width)


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(x, w)
        return torch.bmm(w.flatten(2), patches(x)).view(len(x), w.shape[1], *x.shape[2:])

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, Tensor | None]:  # noqa: ANN401
        x, w = ctx.saved_tensors
        of_x, of_w = ctx.needs_input_grad
        return conv(above, _turned(w)) if of_x else None, _FilterGradient.apply(above, x) if of_w else None


class _FilterGradient(torch.autograd.Function):
    """Of the product of ``above`` with the convolution of ``x``: linear in both, and in the filters a constant."""

    @staticmethod
    def forward(ctx: Any, above: Tensor, x: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(above, x)
        product = torch.bmm(above.flatten(2), patches(x).mT)
        return product.view(*above.shape[:2], x.shape[1], 3, 3)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:  # noqa: ANN401
        above, x = ctx.saved_tensors
        of_above, of_x = ctx.needs_input_grad
        return conv(x, g) if of_above else None, conv(above, _turned(g)) if of_x else None


def _turned(w: Filters) -> Float[Tensor, "task c out 3 3"]:
    """The filters that lead back from what came out to what came in."""
    return w.flip(3, 4).transpose(1, 2)
