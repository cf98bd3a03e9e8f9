"""The tail of a block of Conv4 (norm, 2x2 maximum and ReLU) for the maps of many tasks.

The maximum is taken before the norm, so that a quarter of the map is normalised. This needs scales that are not
negative: the caller flips the signs of the other filters. ``rows`` is the number of leading images whose batch
statistics are used; ``given`` replaces them.
"""

import importlib.util
from types import ModuleType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

_aten = torch.ops.aten
_PIXEL_AXES = (0, 2, 3)
Map = Float[Tensor, "n taskc h w"]
Pooled = Float[Tensor, "n taskc h2 w2"]
Each = Float[Tensor, "taskc 1 1"]


class Moments(NamedTuple):
    """Mean and (biased) variance of each channel of each task."""

    mean: Each
    variance: Each


def plain_tail(
    y: Map, scale: Each, shift: Each, eps: float, rows: int, given: Moments | None
) -> tuple[Pooled, Moments]:
    """Computes the tail by operations that can be differentiated twice; returns the output and the moments used."""
    if given is None:
        mean = y[:rows].mean(_PIXEL_AXES).view_as(scale)
        given = Moments(mean, (y[:rows] - mean).square().mean(_PIXEL_AXES).view_as(scale))
    factor = scale * (given.variance + eps).rsqrt()
    return torch.addcmul(shift - given.mean * factor, functional.max_pool2d(y, 2), factor).relu(), given


def fused_tail(
    y: Map, scale: Each, shift: Each, eps: float, rows: int, given: Moments | None
) -> tuple[Pooled, Moments]:
    """Computes the same for first derivatives, in as few passes over the map as possible.

    ``y`` may have a lower precision than the other tensors.
    """
    z, mean, variance = _FusedTail.apply(y, scale, shift, eps, rows, given)
    return z, Moments(mean, variance)


class _FusedTail(torch.autograd.Function):
    """The tail as one operation, whose gradient has two terms.

    Let ``u = (top - mean) r``, ``r = (variance + eps) ** -0.5`` and ``g`` the gradient where ``z > 0``. The gradient
    of the map is ``scale r g`` at the maxima, minus ``scale r (sum(g) + sum(g u) (y - mean) r) / n`` at each of the
    ``n`` pixels that the batch statistics were computed from.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        y: Tensor,
        scale: Tensor,
        shift: Tensor,
        eps: float,
        rows: int,
        given: Moments | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        if given is None:
            some, kind = y[:rows], scale.dtype
            mean = some.mean(_PIXEL_AXES, dtype=kind).view_as(scale)
            square = torch.linalg.vector_norm(some, 2, _PIXEL_AXES, dtype=kind).square().view_as(scale)
            variance = torch.addcmul(square / some[:, 0].numel(), mean, mean, value=-1).clamp_(min=0)
        else:
            mean, variance = given
        r = (variance + eps).rsqrt()
        factor = scale * r
        ctx.kernels = _kernels(y)
        forward = ctx.kernels.forward if ctx.kernels else _forward
        z, *kept = forward(y, factor, torch.addcmul(shift, mean, factor, value=-1))
        ctx.save_for_backward(y, mean, r, factor, *kept)
        ctx.rows, ctx.own = rows, given is None
        ctx.mark_non_differentiable(mean, variance)
        return z, mean, variance

    @staticmethod
    def backward(ctx: Any, above: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        y, mean, r, factor, *kept = ctx.saved_tensors
        sums, back = (ctx.kernels.sums, ctx.kernels.backward) if ctx.kernels else (_sums, _backward)
        above = above.contiguous(memory_format=torch.channels_last)
        sum_g, sum_gu = sums(above, mean, r, *kept)
        of_y = offset = None
        if ctx.own:
            share = factor / y[: ctx.rows, 0].numel()
            of_y = share * sum_gu * r
            offset = share * sum_g - of_y * mean
        return back(above, y, factor, of_y, offset, ctx.rows, *kept), sum_gu, sum_g, None, None, None


def _forward(y: Tensor, factor: Tensor, offset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the output, the maxima, and the positions of the maxima (-1 where the output is zero)."""
    top, positions = _aten.max_pool2d_with_indices(y, [2, 2])
    z = torch.addcmul(offset, top.to(factor.dtype), factor).relu_()
    return z.to(y.dtype), top, positions.masked_fill_(z <= 0, -1)


def _sums(above: Tensor, mean: Tensor, r: Tensor, top: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the sum of the gradient where the output is positive, and the sum of it times the normalised maxima."""
    g = above.to(mean.dtype) * (positions >= 0)
    return g.sum(_PIXEL_AXES).view_as(mean), (g * (top - mean) * r).sum(_PIXEL_AXES).view_as(mean)


def _backward(
    above: Tensor,
    y: Tensor,
    factor: Tensor,
    of_y: Tensor | None,
    offset: Tensor | None,
    rows: int,
    top: Tensor,  # noqa: ARG001
    positions: Tensor,
) -> Tensor:
    """Returns the gradient of the map."""
    sizes = [2, 2], [2, 2], [0, 0], [1, 1], False
    g = (above * factor * (positions >= 0)).to(y.dtype)
    d_y = _aten.max_pool2d_with_indices_backward(g, y, *sizes, positions.clamp(min=0))
    if of_y is not None and offset is not None:
        d_y[:rows] -= torch.addcmul(offset.to(y.dtype), y[:rows], of_y.to(y.dtype))
    return d_y


def _kernels(y: Tensor) -> ModuleType | None:
    """Returns the module of Triton kernels for these three steps; None if Triton cannot compile them."""
    if not y.is_cuda or y.dtype == torch.float64 or importlib.util.find_spec("triton") is None:
        return None
    from metarep.fast import tail_kernels

    return tail_kernels if tail_kernels.compiles() else None
