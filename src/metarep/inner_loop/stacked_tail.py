"""What follows the convolution in a block of Conv4, for the maps of many tasks: norm, 2x2 maximum and ReLU.

The maximum is taken first, where the scale is not negative (the caller turns the filters): what is normalised is then a
quarter of the map. ``rows`` are the leading images whose statistics are used; with ``given`` none are taken.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

_aten = torch.ops.aten
_PLACES = (2, 3, 4)
Maps = Float[Tensor, "task c n h w"]
Each = Float[Tensor, "task c 1 1 1"]


class Moments(NamedTuple):
    """Mean and (biased) variance of each channel of each task."""

    mean: Each
    variance: Each


def plain_tail(y: Maps, scale: Each, shift: Each, eps: float, rows: int, given: Moments | None) -> tuple[Maps, Moments]:
    """Of operations that can be differentiated twice."""
    if given is None:
        some = y[:, :, :rows]
        mean = some.mean(_PLACES, keepdim=True)
        given = Moments(mean, (some - mean).square().mean(_PLACES, keepdim=True))
    top = functional.max_pool2d(y.flatten(0, 1), 2).unflatten(0, y.shape[:2])
    factor = scale * (given.variance + eps).rsqrt()
    return torch.addcmul(shift - given.mean * factor, top, factor).relu(), given


def fused_tail(y: Maps, scale: Each, shift: Each, eps: float, rows: int, given: Moments | None) -> tuple[Maps, Moments]:
    """For first derivatives, in as few passes over the map as there can be; ``y`` may be of lower precision."""
    z, mean, variance = _FusedTail.apply(y, scale, shift, eps, rows, given)
    return z, Moments(mean, variance)


class _FusedTail(torch.autograd.Function):
    """Its pass back is two terms.

    With ``u = (top - mean) r``, ``r = (variance + eps) ** -0.5`` and ``g`` the gradient where ``z > 0``, the maxima
    receive ``scale r g``, and each of the ``n`` places that the statistics were taken of gives back
    ``scale r (sum(g) + sum(g u) (y - mean) r) / n``.
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
        flat, kind = y.flatten(0, 1), scale.dtype
        some = y[:, :, :rows]
        if given is None:
            mean = some.mean(_PLACES, keepdim=True, dtype=kind)
            square = torch.linalg.vector_norm(some, 2, _PLACES, keepdim=True, dtype=kind).square()
            variance = torch.addcmul(square / some[0, 0].numel(), mean, mean, value=-1).clamp_(min=0)
        else:
            mean, variance = given
        top, places = _aten.max_pool2d_with_indices(flat, [2, 2])
        r = (variance + eps).rsqrt()
        u = (top.unflatten(0, y.shape[:2]) - mean) * r
        z = torch.addcmul(shift, u, scale).relu_().to(y.dtype)
        ctx.save_for_backward(flat, places, u, z, mean, r, scale)
        ctx.rows, ctx.own = rows, given is None
        ctx.mark_non_differentiable(mean, variance)
        return z, mean, variance

    @staticmethod
    def backward(ctx: Any, above: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        flat, places, u, z, mean, r, scale = ctx.saved_tensors
        g = _aten.threshold_backward(above, z, 0)
        sum_g = g.sum(_PLACES, keepdim=True, dtype=u.dtype)
        sum_gu = (g * u).sum(_PLACES, keepdim=True)
        inward = scale * r
        d_top = (g * inward).to(z.dtype).flatten(0, 1)
        sizes = [2, 2], [2, 2], [0, 0], [1, 1], False
        d_y = _aten.max_pool2d_with_indices_backward(d_top, flat, *sizes, places).unflatten(0, z.shape[:2])
        if ctx.own:
            some = flat.unflatten(0, z.shape[:2])[:, :, : ctx.rows]
            share = inward / some[0, 0].numel()
            slope = share * sum_gu * r
            offset = share * sum_g - slope * mean
            d_y[:, :, : ctx.rows] -= torch.addcmul(offset.to(z.dtype), some, slope.to(z.dtype))
        return d_y, sum_gu, sum_g, None, None, None
