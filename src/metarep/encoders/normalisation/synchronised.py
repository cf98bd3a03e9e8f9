"""Synchronised batch statistics: batch norms of several processes that use the mean and variance of the whole batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from metarep.encoders.normalisation.explicit import moments
from metarep.machine.ranks import ranks, stacked_over_ranks, sum_over_ranks

_ON: ContextVar[bool] = ContextVar("synchronised", default=False)


def is_synchronised() -> bool:
    """Whether batch norms in training use the statistics of all ranks now.

    >>> is_synchronised()
    False
    """
    return _ON.get()


@contextmanager
def synchronised(on: bool = True) -> Iterator[None]:
    """A context in which batch norms in training use the mean and variance of the batch of all ranks, with gradient.

    It also runs where torch's ``SyncBatchNorm`` does not, on a CPU, and no layer is replaced: each call of
    ``functional.batch_norm`` in training is. In a single process it changes nothing.

    Args:
        on: whether to synchronise; False switches it off inside another such context.
    """
    before = _ON.set(on and ranks() > 1)
    try:
        if not _ON.get():
            yield
            return
        with _Replace():
            yield
    finally:
        _ON.reset(before)


class _Replace(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        function = batch_norm if func is functional.batch_norm and _ON.get() else func
        return function(*args, **(kwargs or {}))


def batch_norm(
    input: Float[Tensor, "b c *pixel"],
    running_mean: Float[Tensor, " c"] | None,
    running_var: Float[Tensor, " c"] | None,
    weight: Float[Tensor, " c"] | None = None,
    bias: Float[Tensor, " c"] | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Float[Tensor, "b c *pixel"]:
    """As ``functional.batch_norm``, with the batch statistics of all ranks in training.

    Returns:
        The normalised batch of this rank, in the dtype of ``input``.
    """
    if not training:
        return functional.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    output, mean, variance, count = _Normalise.apply(input, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean), momentum)
            running_var.lerp_((variance * (count / (count - 1))).to(running_var), momentum)
    return output


def whole_moments(own: Tensor, count: int) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"], Tensor]:
    """Mean, (biased) variance and number of values of each channel over all ranks.

    Args:
        own: mean and variance of this rank, ``2 c``.
        count: number of values of a channel on this rank.
    """
    row = torch.cat([own.flatten().double(), own.new_tensor([count], dtype=torch.float64)])
    every = stacked_over_ranks(row)
    counts, (means, variances) = every[:, -1:], every[:, :-1].unflatten(1, (2, -1)).unbind(1)
    total = counts.sum()
    mean = (means * counts).sum(0) / total
    variance = ((variances + (means - mean).square()) * counts).sum(0) / total
    return mean, variance, total


class _Normalise(torch.autograd.Function):
    """Normalises by statistics of all ranks; their gradients are sums over all ranks, by one all-reduce."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        own = torch.stack(moments(x.detach()))
        mean, variance, total = whole_moments(own, x.numel() // x.shape[1])
        mean, variance = mean.to(own), variance.to(own)
        ctx.eps = eps
        ctx.save_for_backward(x, weight, mean, variance, total)
        y = torch.batch_norm(x, weight, bias, mean, variance, False, 0.0, eps, torch.backends.cudnn.enabled)
        ctx.mark_non_differentiable(mean, variance, total)
        return y, mean, variance, total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, above: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, weight, mean, variance, total = ctx.saved_tensors
        over = (-1, *[1] * (x.ndim - 2))
        axes = [0, *range(2, x.ndim)]
        wide, g = x.to(mean.dtype), above.to(mean.dtype)
        inverse = (variance + ctx.eps).rsqrt()
        centred = wide - mean.view(over)
        d_bias = g.sum(axes)
        d_weight = (g * centred).sum(axes) * inverse
        sums = sum_over_ranks(torch.stack([d_bias, d_weight])) / total.to(mean)
        scale = inverse if weight is None else inverse * weight
        own = (g - sums[0].view(over) - centred * (inverse * sums[1]).view(over)) * scale.view(over)
        given = weight is not None
        return own.to(x.dtype), d_weight if given else None, d_bias if given else None, None
