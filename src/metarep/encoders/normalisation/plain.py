"""Layer, instance and root-mean-square normalisation, and the hard sigmoid, in plain arithmetic.

Trap: under vmap, the second derivatives of torch's own functions are wrong by about one part in ten thousand. Those of
group normalisation are right. The hard sigmoid of torch has no second derivative at all.

Ba et al., Layer Normalization, 2016; Ulyanov et al., Instance Normalization, 2016.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.overrides import TorchFunctionMode


class PlainNorm(nn.Module):
    """Replaces a layer or instance norm by one in plain arithmetic, which vmap can differentiate twice.

    Args:
        layer: the replaced layer; its parameters are shared.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, layer: nn.LayerNorm | _InstanceNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = layer.weight, layer.bias, layer.eps
        self.shape = layer.normalized_shape if isinstance(layer, nn.LayerNorm) else ()  # (): all pixels of a channel

    def forward(self, x: Tensor) -> Tensor:
        """The normalised batch, of the shape of ``x``."""
        if self.shape:
            return layer_norm(x, self.shape, self.weight, self.bias, self.eps)
        return instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


class PlainHardsigmoid(nn.Module):
    """Replaces ``nn.Hardsigmoid``, which the gates of MobileNetV3 and GhostNet use, by one with a second derivative."""

    def forward(self, x: Tensor) -> Tensor:
        """The hard sigmoid of each number."""
        return hardsigmoid(x)


class InPlainArithmetic(TorchFunctionMode):
    """A context in which the functions of this module take the place of torch's, in all layers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        return _PLAIN.get(func, func)(*args, **(kwargs or {}))  # pyright: ignore[reportOptionalCall]


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:  # noqa: ARG001 - the arguments are torch's
    """Compute ``functional.hardsigmoid`` in operations that can be differentiated twice.

    >>> hardsigmoid(torch.tensor([-4.0, 0.0, 1.5, 4.0]))
    tensor([0.0000, 0.5000, 0.7500, 1.0000])
    """
    return functional.relu6(input + 3) / 6


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Compute ``functional.layer_norm`` in plain arithmetic.

    >>> layer_norm(torch.tensor([[1.0, 3.0]]), [2], eps=0.0)
    tensor([[-1.,  1.]])
    """
    axes = _last(input, normalized_shape)
    centred = input - input.mean(axes, keepdim=True)
    x = centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Compute ``functional.rms_norm`` in plain arithmetic.

    >>> rms_norm(torch.tensor([[3.0, 3.0]]), [2], eps=0.0)
    tensor([[1., 1.]])
    """
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    x = input * (input.square().mean(_last(input, normalized_shape), keepdim=True) + eps).rsqrt()
    return x if weight is None else x * weight


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Compute ``functional.instance_norm`` in plain arithmetic; torch computes it if there are running statistics.

    >>> instance_norm(torch.tensor([[[1.0, 3.0]]]), eps=0.0)
    tensor([[[-1.,  1.]]])
    """
    if running_mean is not None or not use_input_stats:
        arguments = (input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
        return functional.instance_norm(*arguments)
    axes = tuple(range(2, input.ndim))
    centred = input - input.mean(axes, keepdim=True)
    x = centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()
    channels = (-1, *[1] * (input.ndim - 2))  # the axis of channels comes before those of pixels
    x = x if weight is None else x * weight.reshape(channels)
    return x if bias is None else x + bias.reshape(channels)


def _last(x: Tensor, shape: Sequence[int]) -> tuple[int, ...]:
    """The last axes of ``x``, as many as ``shape`` has."""
    return tuple(range(x.ndim - len(shape), x.ndim))


_PLAIN: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.layer_norm: layer_norm,
    functional.instance_norm: instance_norm,
    functional.hardsigmoid: hardsigmoid,
    **({functional.rms_norm: rms_norm} if hasattr(functional, "rms_norm") else {}),
}
