"""ExplicitNorm: a batch norm that is told whose statistics to use."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from metarep.normalisation.told import Moments, Told, like


class ExplicitNorm(nn.Module):
    """Batch normalisation that is told whose statistics to use; scale and bias are those of the layer it stands for.

    Ioffe, Szegedy, Batch Normalization, 2015. Input and output are ``b c *place``. It keeps no state between passes
    but what it was told and what it was asked to record; ``momentum`` and training mode mean nothing to it.

    Args:
        layer: the layer; its parameters are shared.
        differentiable: compute in plain operations that can be differentiated twice. Otherwise one fused pass, for
            first derivatives only.
        path: of the layer, for errors.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, layer: _BatchNorm, *, differentiable: bool, path: str = "") -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.eps, self.differentiable = layer.eps, differentiable
        self.told = Told(path, like(layer))

    def forward(self, x: Tensor) -> Tensor:
        return normalise(x, self.weight, self.bias, self.eps, self.told, differentiable=self.differentiable)


def normalise(
    x: Float[Tensor, "b c *place"],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    told: Told,
    *,
    differentiable: bool,
) -> Float[Tensor, "b c *place"]:
    """Batch normalisation by the statistics that ``told`` says; the arguments are those of :class:`ExplicitNorm`."""
    given, rows = told.take(x)
    if given is not None and not told.linked:
        return _batch_norm(x, weight, bias, given, eps)
    some = x if rows is None else x[:rows]
    if differentiable or told.linked:  # plain arithmetic: torch's own layer has a wrong second derivative under vmap
        mean, variance = given or moments(some)
        told.keep(mean, variance)
        scale = (variance + eps).rsqrt()
        scale = scale if weight is None else scale * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        places = (1, -1, *[1] * (x.ndim - 2))
        return torch.addcmul(shift.view(places), x, scale.view(places))
    if told.recording:
        told.keep(*moments(some.detach()))
    if rows is None:
        return _batch_norm(x, weight, bias, None, eps)
    return _NormaliseByRows.apply(x, weight, bias, rows, eps)


def _batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, given: Moments | None, eps: float) -> Tensor:
    """As ``functional.batch_norm``, which somebody may be listening to."""
    mean, variance = given or (None, None)
    return torch.batch_norm(x, weight, bias, mean, variance, given is None, 0.0, eps, torch.backends.cudnn.enabled)


class _NormaliseByRows(torch.autograd.Function):
    """All rows by the statistics of the first few, in fused passes forward and back.

    Backward, the mean and the variance pass on what every row owes them, and only the first rows receive it: these are
    the usual terms of batch normalisation, with sums over all rows and divided by the number of the first ones.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, rows: int, eps: float) -> Tensor:  # noqa: ANN401
        mean, variance = moments(x[:rows])
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.rows, ctx.eps = rows, eps
        return _batch_norm(x, weight, bias, (mean, variance), eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, weight, mean, variance = ctx.saved_tensors
        rows, eps = ctx.rows, ctx.eps
        own, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward(
            gradient.contiguous(memory_format=_format(x)), x, weight, mean, variance, None, None, False, eps, [True] * 3
        )
        places = (1, -1, *[1] * (x.ndim - 2))
        inverse = (variance + eps).rsqrt()
        scale = inverse if weight is None else inverse * weight
        some = x[:rows]
        share = scale / (some.numel() / some.shape[1])
        # share * (d_bias + normalised * d_weight), as one product and one sum over the first rows
        factor = share * inverse * d_weight
        offset = share * d_bias - factor * mean
        own[:rows] -= torch.addcmul(offset.view(places), some, factor.view(places)).to(own.dtype)
        return own, d_weight if weight is not None else None, d_bias if weight is not None else None, None, None


def moments(x: Float[Tensor, "b c *place"]) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
    """Mean and (biased) variance of each channel, in float32 at least."""
    axes = [0, *range(2, x.ndim)]
    wide = x if x.dtype == torch.float64 else x.float()
    mean = wide.mean(axes)
    centred = wide - mean.view(1, -1, *[1] * (x.ndim - 2))
    return mean, centred.square().mean(axes)  # thrice as fast as torch.var_mean on a processor, and as exact


def _format(x: Tensor) -> torch.memory_format:
    dense = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if dense else torch.contiguous_format
