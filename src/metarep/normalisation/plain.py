"""Layer, instance and root-mean-square normalisation in plain arithmetic.

Trap: torch's own have a second derivative under vmap that is off, by about a ten-thousandth; group normalisation is
right.

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
    """Layer or instance normalisation in plain arithmetic.

    Args:
        layer: the layer; its parameters are shared.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, layer: nn.LayerNorm | _InstanceNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = layer.weight, layer.bias, layer.eps
        self.shape = layer.normalized_shape if isinstance(layer, nn.LayerNorm) else ()  # (): all places of a channel

    def forward(self, x: Tensor) -> Tensor:
        if self.shape:
            return layer_norm(x, self.shape, self.weight, self.bias, self.eps)
        return instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


class InPlainArithmetic(TorchFunctionMode):
    """While a network runs: layer, instance and root-mean-square norms are plain, whichever layer calls for them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        return _PLAIN.get(func, func)(*args, **(kwargs or {}))  # pyright: ignore[reportOptionalCall]


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """As ``functional.layer_norm``."""
    axes = _last(input, normalized_shape)
    centred = input - input.mean(axes, keepdim=True)
    x = centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """As ``functional.rms_norm``."""
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
    """As ``functional.instance_norm``; one that keeps statistics is left to torch."""
    if running_mean is not None or not use_input_stats:
        given = (input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
        return functional.instance_norm(*given)
    axes = tuple(range(2, input.ndim))
    centred = input - input.mean(axes, keepdim=True)
    x = centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()
    places = (-1, *[1] * (input.ndim - 2))  # a weight of channels stands before their places
    x = x if weight is None else x * weight.reshape(places)
    return x if bias is None else x + bias.reshape(places)


def _last(x: Tensor, shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(range(x.ndim - len(shape), x.ndim))


_PLAIN: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.layer_norm: layer_norm,
    functional.instance_norm: instance_norm,
    **({functional.rms_norm: rms_norm} if hasattr(functional, "rms_norm") else {}),
}
