"""Normalisation: whose statistics a batch-norm layer uses, made explicit.

``running``: those gathered in training, constants at test time; features can be cached.
``support``: the mean and variance of a task's support images at the current weights, differentiated through, for
support and query alike; a query's features never depend on other queries.
``transductive``: the query batch's own, as in most of the literature; every query sees the others.
"""

import copy
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from metarep.errors import MetarepError

Normalisation = Literal["running", "support", "transductive"]
Statistics = list[tuple[Tensor, Tensor]]  # mean and (biased) variance of each layer, in the order of the layers


class ExplicitNorm(nn.Module):
    """Batch normalisation that is told whose statistics to use; scale and bias are those of the layer it stands for.

    Ioffe, Szegedy, Batch Normalization, 2015. Input and output are ``b c *place``. It keeps no state between passes
    but what it was told and what it was asked to record; ``momentum`` and training mode mean nothing to it.

    Args:
        layer: the layer; its parameters are shared.
        differentiable: compute in plain operations that can be differentiated twice. Otherwise one fused pass, for
            first derivatives only.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, layer: _BatchNorm, *, differentiable: bool) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.eps, self.differentiable = layer.eps, differentiable
        self.rows: int | None = None  # leading rows that the statistics are taken of; None for all
        self.given: tuple[Tensor, Tensor] | None = None  # use these instead
        self.recording = False
        self.seen: tuple[Tensor, Tensor] | None = None  # what was used, where it was recorded

    def forward(self, x: Tensor) -> Tensor:
        if self.given is not None:
            return functional.batch_norm(x, *self.given, self.weight, self.bias, False, 0.0, self.eps)
        some = x if self.rows is None else x[: self.rows]
        if self.differentiable:  # plain arithmetic: torch's own layer has a wrong second derivative under vmap
            mean, variance = _moments(some)
            if self.recording:
                self.seen = mean.detach(), variance.detach()
            scale = (variance + self.eps).rsqrt()
            scale = scale if self.weight is None else scale * self.weight
            shift = -mean * scale if self.bias is None else self.bias - mean * scale
            places = (1, -1, *[1] * (x.ndim - 2))
            return torch.addcmul(shift.view(places), x, scale.view(places))
        if self.recording:
            self.seen = _moments(some.detach())
        if self.rows is None:
            return functional.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        return _NormaliseByRows.apply(x, self.weight, self.bias, self.rows, self.eps)


class PlainNorm(nn.Module):
    """Layer or instance normalisation in plain arithmetic.

    Trap: torch's own have a second derivative under vmap that is off, by about a ten-thousandth; group normalisation is
    right.

    Ba et al., Layer Normalization, 2016; Ulyanov et al., Instance Normalization, 2016.

    Args:
        layer: the layer; its parameters are shared.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, layer: nn.LayerNorm | _InstanceNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = layer.weight, layer.bias, layer.eps
        self.sides = len(layer.normalized_shape) if isinstance(layer, nn.LayerNorm) else 0  # 0: all places of a channel

    def forward(self, x: Tensor) -> Tensor:
        axes = tuple(range(x.ndim - self.sides if self.sides else 2, x.ndim))
        centred = x - x.mean(axes, keepdim=True)
        x = centred * (centred.square().mean(axes, keepdim=True) + self.eps).rsqrt()
        places = () if self.sides else (1,) * (x.ndim - 2)  # a weight of channels stands before their places
        x = x if self.weight is None else x * self.weight.reshape(*self.weight.shape, *places)
        return x if self.bias is None else x + self.bias.reshape(*self.bias.shape, *places)


class _NormaliseByRows(torch.autograd.Function):
    """All rows by the statistics of the first few, in fused passes forward and back.

    Backward, the mean and the variance pass on what every row owes them, and only the first rows receive it: these are
    the usual terms of batch normalisation, with sums over all rows and divided by the number of the first ones.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, rows: int, eps: float) -> Tensor:  # noqa: ANN401
        mean, variance = _moments(x[:rows])
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.rows, ctx.eps = rows, eps
        return functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)

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


def replica(body: nn.Module, *, differentiable: bool) -> nn.Module:
    """A copy of ``body`` that shares its parameters, with explicit batch normalisation, and with plain layer and
    instance normalisation where it is to be differentiated twice.

    One thread needs one: whose statistics to use, and which weights, are set on the copy and never on ``body``.

    Raises:
        MetarepError: ``body`` has buffers other than batch-norm statistics; what to do with them in a task is unknown.
    """
    statistics = {
        f"{path}.{name}".removeprefix(".")
        for path, layer in body.named_modules()
        if isinstance(layer, _BatchNorm)
        for name, _ in layer.named_buffers()
    }
    for name, _ in body.named_buffers():
        if name not in statistics:
            raise MetarepError(
                f"{type(body).__name__} has the buffer {name!r}, which is not a statistic of batch normalisation; "
                "gradient descent on a task cannot know whether it changes. Make it a parameter, or a plain attribute"
            )
    shared: dict[int, object] = {id(parameter): parameter for parameter in body.parameters()}
    for module in body.modules():  # a layer that draws goes on drawing from the same generator
        shared |= {id(value): value for value in vars(module).values() if isinstance(value, torch.Generator)}
    twin = copy.deepcopy(body, shared)  # what the memo holds is not copied

    def instead(layer: nn.Module) -> nn.Module:
        if isinstance(layer, _BatchNorm):
            return ExplicitNorm(layer, differentiable=differentiable)
        if differentiable and isinstance(layer, nn.LayerNorm | _InstanceNorm):
            return PlainNorm(layer)
        return layer

    for module in list(twin.modules()):
        for name, child in list(module.named_children()):
            if (other := instead(child)) is not child:
                setattr(module, name, other)
    return instead(twin)


def explicit_norms(twin: nn.Module) -> list[ExplicitNorm]:
    """The norm layers of a replica, in order."""
    return [layer for layer in twin.modules() if isinstance(layer, ExplicitNorm)]


def batch_norms(body: nn.Module) -> list[_BatchNorm]:
    """The norm layers of an encoder, in the same order."""
    return [layer for layer in body.modules() if isinstance(layer, _BatchNorm)]


def running_statistics(body: nn.Module) -> Statistics:
    """The running mean and variance of each layer.

    Raises:
        MetarepError: a layer keeps none.
    """
    found = []
    for layer in batch_norms(body):
        if layer.running_mean is None or layer.running_var is None:
            raise MetarepError("a norm layer keeps no running statistics (track_running_stats=False); use support ones")
        found.append((layer.running_mean, layer.running_var))
    return found


@torch.no_grad()
def follow(layer: _BatchNorm, mean: Float[Tensor, " c"], variance: Float[Tensor, " c"], places: int) -> None:
    """Move a layer's running statistics towards those of a batch, as torch does in training.

    Args:
        layer: its buffers change.
        mean, variance: (biased) of the batch.
        places: numbers a channel that they were taken of; the variance that is kept is the unbiased one.
    """
    assert layer.running_mean is not None
    assert layer.running_var is not None
    assert layer.num_batches_tracked is not None
    layer.num_batches_tracked.add_(1)
    momentum = 1 / int(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mean.to(layer.running_mean), momentum)
    layer.running_var.lerp_(variance.to(layer.running_var) * (places / (places - 1)), momentum)


@torch.no_grad()
def update_running(body: nn.Module, seen: Sequence[Statistics]) -> None:
    """Move running statistics towards the mean of what several tasks saw, so that the body can be used without them.

    Args:
        body: its norm layers' buffers change, by each layer's momentum.
        seen: of each task, mean and (biased) variance of every layer; at least one task.
    """
    by_momentum: dict[float, list[tuple[Tensor, Tensor]]] = {}
    for i, layer in enumerate(batch_norms(body)):
        if layer.running_mean is None or layer.running_var is None:
            continue
        pairs = by_momentum.setdefault(0.1 if layer.momentum is None else layer.momentum, [])
        for kept, part in ((layer.running_mean, 0), (layer.running_var, 1)):
            all_seen = [task[i][part] for task in seen]
            pairs.append((kept, torch.stack(all_seen).mean(0) if len(seen) > 1 else all_seen[0].to(kept)))
    for momentum, pairs in by_momentum.items():  # together: on a GPU each is a launch
        torch._foreach_lerp_([kept for kept, _ in pairs], [new for _, new in pairs], momentum)


def _moments(x: Float[Tensor, "b c *place"]) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
    axes = [0, *range(2, x.ndim)]
    wide = x if x.dtype == torch.float64 else x.float()
    mean = wide.mean(axes)
    centred = wide - mean.view(1, -1, *[1] * (x.ndim - 2))
    return mean, centred.square().mean(axes)  # thrice as fast as torch.var_mean on a processor, and as exact


def _format(x: Tensor) -> torch.memory_format:
    dense = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if dense else torch.contiguous_format
