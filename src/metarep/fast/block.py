"""What all C code for a block of Conv4 shares: its result, second derivatives, and the sign of a norm's scale."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

CHANNELS = 32  # of a block, that the C code takes at a time


class Block(NamedTuple):
    """What comes out, and the mean and (biased) variance that were used."""

    z: Float[Tensor, "b out h2 w2"]
    mean: Float[Tensor, " out"]
    variance: Float[Tensor, " out"]


def plain_tail(
    y: Tensor,
    scale: Tensor,
    shift: Tensor,
    eps: float,
    rows: int | None,
    given: Any,  # noqa: ANN401
) -> Tensor:
    """ReLU of the 2x2 maximum of a normalised map, of operations that can be differentiated as often as one likes."""
    wide = y.to(scale.dtype)
    if given is None:
        mean = wide[:rows].mean((0, 2, 3))
        given = mean, (wide[:rows] - mean.view(-1, 1, 1)).square().mean((0, 2, 3))
    factor = scale * (given[1] + eps).rsqrt()
    wide = torch.addcmul((shift - given[0] * factor).view(-1, 1, 1), wide, factor.view(-1, 1, 1))
    return functional.max_pool2d(wide, 2).relu().to(y.dtype)


def plain_block(x: Tensor, weight: Tensor, *rest: Any) -> Tensor:  # noqa: ANN401
    """The same of the images' convolution."""
    return plain_tail(functional.conv2d(x, weight.to(x.dtype), padding=1), *rest)


def second(again: Tensor, above: Tensor, inputs: Sequence[Tensor]) -> list[Tensor | None]:
    """Gradients of ``again`` that can be differentiated again; None for an input that asks for none."""
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    gradients = iter(torch.autograd.grad(again, wanted, above.to(again.dtype), create_graph=True))
    return [next(gradients) if tensor.requires_grad else None for tensor in inputs]


def signs(scale: Float[Tensor, " out"]) -> Float[Tensor, " out"] | None:
    """-1 where a norm's scale is negative, else 1; None if it never is, where looking costs no wait."""
    if scale.device.type == "cpu" and not bool((scale < 0).any()):
        return None
    return torch.where(scale < 0, -1.0, 1.0).to(scale.dtype)


def turned(tensor: Float[Tensor, "out *rest"], sign: Float[Tensor, " out"] | None) -> Float[Tensor, "out *rest"]:
    """With these signs along its first axis."""
    return tensor if sign is None else tensor * sign.view(-1, *[1] * (tensor.ndim - 1))
