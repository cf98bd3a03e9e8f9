"""Shared parts of the C code for a block of Conv4: its result, second derivatives, and the sign of a norm's scale."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from metarep.machine.ranks import sum_over_ranks

CHANNELS = 32  # the C code takes so many channels at a time


class Block(NamedTuple):
    """The output of a block, the mean and (biased) variance that its norm used, and their number of pixels."""

    z: Float[Tensor, "b out h2 w2"]
    mean: Float[Tensor, " out"]
    variance: Float[Tensor, " out"]
    pixels: int


def plain_tail(
    y: Tensor,
    scale: Tensor,
    shift: Tensor,
    eps: float,
    rows: int | None,
    given: Any,  # noqa: ANN401
) -> Tensor:
    """Returns the ReLU of the 2x2 maximum of a normalised map, differentiable any number of times."""
    wide = y.to(scale.dtype)
    if given is None:
        mean = wide[:rows].mean((0, 2, 3))
        given = mean, (wide[:rows] - mean.view(-1, 1, 1)).square().mean((0, 2, 3))
    factor = scale * (given[1] + eps).rsqrt()
    wide = torch.addcmul((shift - given[0] * factor).view(-1, 1, 1), wide, factor.view(-1, 1, 1))
    return functional.max_pool2d(wide, 2).relu().to(y.dtype)


def plain_block(x: Tensor, weight: Tensor, *rest: Any) -> Tensor:  # noqa: ANN401
    """Returns :func:`plain_tail` of the convolution of ``x``."""
    return plain_tail(functional.conv2d(x, weight.to(x.dtype), padding=1), *rest)


def second(again: Tensor, above: Tensor, inputs: Sequence[Tensor]) -> list[Tensor | None]:
    """Returns gradients of ``again`` that can be differentiated again; None for an input without a gradient."""
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    gradients = iter(torch.autograd.grad(again, wanted, above.to(again.dtype), create_graph=True))
    return [next(gradients) if tensor.requires_grad else None for tensor in inputs]


def refuse_second(across: bool) -> None:
    """Raises if statistics span ranks, because the plain operations would use those of one rank."""
    if across:
        raise NotImplementedError("a second derivative through batch statistics of several ranks")


def whole_sums(sums: Float[Tensor, "*part two out"], pixels: int) -> tuple[Float[Tensor, "two out"], int]:
    """Returns sums over all parts and ranks, and the number of pixels of all ranks."""
    own = sums.view(-1, *sums.shape[-2:]).sum(0)
    total = sum_over_ranks(torch.cat([own.flatten().double(), own.new_tensor([pixels], dtype=torch.float64)]))
    return total[:-1].view_as(own).to(own), int(total[-1])


def signs(scale: Float[Tensor, " out"]) -> Float[Tensor, " out"] | None:
    """Returns -1 where a norm's scale is negative, else 1.

    Returns None if no scale is negative. This is checked on the CPU only: on a GPU it needs a host synchronisation.
    """
    if scale.device.type == "cpu" and not bool((scale < 0).any()):
        return None
    return torch.where(scale < 0, -1.0, 1.0).to(scale.dtype)


def turned(tensor: Float[Tensor, "out *rest"], sign: Float[Tensor, " out"] | None) -> Float[Tensor, "out *rest"]:
    """Returns the tensor times these signs along its first axis."""
    return tensor if sign is None else tensor * sign.view(-1, *[1] * (tensor.ndim - 1))
