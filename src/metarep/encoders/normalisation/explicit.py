"""ExplicitNorm: batch normalisation with explicitly chosen statistics."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from metarep.encoders.normalisation.pass_statistics import Moments, PassStatistics, like


class ExplicitNorm(nn.Module):
    """Replaces a batch norm layer: it shares scale and bias, and its statistics are set by ``statistics``.

    Ioffe, Szegedy, Batch Normalization, 2015. Input and output are ``b c *pixel``. Between passes it keeps nothing but
    ``statistics``; ``momentum`` and training mode have no effect.

    Args:
        layer: the replaced layer; its parameters are shared.
        differentiable: compute in plain operations that can be differentiated twice. Otherwise a fused operation is
            used, for first derivatives only.
        path: path of the layer in the network, for messages.

    >>> layer = ExplicitNorm(nn.BatchNorm1d(1), differentiable=True)
    >>> layer.statistics.begin(rows=2, images=3)  # the first two rows have mean 2 and variance 1
    >>> layer(torch.tensor([[1.0], [3.0], [5.0]])).round(decimals=3).flatten().tolist()
    [-1.0, 1.0, 3.0]
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, layer: _BatchNorm, *, differentiable: bool, path: str = "") -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.eps, self.differentiable = layer.eps, differentiable
        self.statistics = PassStatistics(path, like(layer))

    def forward(self, x: Tensor) -> Tensor:
        """The normalised batch, of the shape of ``x``."""
        return normalise(x, self.weight, self.bias, self.eps, self.statistics, differentiable=self.differentiable)


def normalise(
    x: Float[Tensor, "b c *pixel"],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    statistics: PassStatistics,
    *,
    differentiable: bool,
) -> Float[Tensor, "b c *pixel"]:
    """Batch normalisation with chosen statistics.

    Args:
        x: a batch of feature maps or rows.
        weight, bias: scale and shift of each channel.
        eps: added to the variance.
        statistics: says which statistics to use, and records them.
        differentiable: see :class:`ExplicitNorm`.
    """
    given, rows = statistics.take(x)
    if given is not None and not statistics.linked:
        return _batch_norm(x, weight, bias, given, eps)
    leading = x if rows is None else x[:rows]
    if differentiable or statistics.linked:  # plain arithmetic: torch's layer has a wrong second derivative under vmap
        mean, variance = given or moments(leading)
        statistics.keep(mean, variance)
        scale = (variance + eps).rsqrt()
        scale = scale if weight is None else scale * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        channels = (1, -1, *[1] * (x.ndim - 2))
        return torch.addcmul(shift.view(channels), x, scale.view(channels))
    if statistics.recording:
        statistics.keep(*moments(leading.detach()))
    if rows is None:
        return _batch_norm(x, weight, bias, None, eps)
    return _NormaliseByRows.apply(x, weight, bias, rows, eps)


def _batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, given: Moments | None, eps: float) -> Tensor:
    """The same as ``functional.batch_norm``, in a form that :class:`ExplicitForward` does not replace."""
    mean, variance = given or (None, None)
    return torch.batch_norm(x, weight, bias, mean, variance, given is None, 0.0, eps, torch.backends.cudnn.enabled)


class _NormaliseByRows(torch.autograd.Function):
    """Normalises all rows by the statistics of the first rows, with fused operations forward and backward.

    In the backward pass, the gradients of mean and variance are sums over all rows, and only the first rows receive
    them. These are the usual terms of batch normalisation, divided by the number of values in the first rows.
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
        channels = (1, -1, *[1] * (x.ndim - 2))
        inverse = (variance + eps).rsqrt()
        scale = inverse if weight is None else inverse * weight
        leading = x[:rows]
        share = scale / (leading.numel() / leading.shape[1])
        # share * (d_bias + normalised * d_weight), as one product and one sum over the first rows
        factor = share * inverse * d_weight
        offset = share * d_bias - factor * mean
        own[:rows] -= torch.addcmul(offset.view(channels), leading, factor.view(channels)).to(own.dtype)
        return own, d_weight if weight is not None else None, d_bias if weight is not None else None, None, None


def moments(x: Float[Tensor, "b c *pixel"]) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
    """Mean and (biased) variance of each channel, in float32 or float64.

    >>> moments(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    (tensor([2., 5.]), tensor([1., 0.]))
    """
    axes = [0, *range(2, x.ndim)]
    wide = x if x.dtype == torch.float64 else x.float()
    mean = wide.mean(axes)
    centred = wide - mean.view(1, -1, *[1] * (x.ndim - 2))
    return mean, centred.square().mean(axes)  # three times as fast as torch.var_mean on a CPU, and as exact


def _format(x: Tensor) -> torch.memory_format:
    dense = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if dense else torch.contiguous_format
