"""The support loss: its gradient, and the product of a vector with its Hessian."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarep.inner_loop import conv4_curvature
from metarep.inner_loop.network import Weights
from metarep.inner_loop.stacked import AnyNetwork

Bend = Callable[[Sequence[Tensor]], Sequence[Tensor | None]]


class Slope(NamedTuple):
    """Of the support loss at some weights.

    Args:
        loss: mean cross-entropy; of many tasks the sum over them.
        gradient: with respect to each adapted tensor.
        bend: from a vector (a part for each adapted tensor) to the derivative of its product with the gradient, with
            respect to every tensor; None where there is none, or where it was not asked for.
    """

    loss: Tensor
    gradient: list[Tensor]
    bend: Bend | None


def support_slope(
    network: AnyNetwork,
    weights: Weights,
    adapted: Sequence[int],
    support: Float[Tensor, "*task support c h w"],
    labels: Int[Tensor, "*task support"],
    *,
    keep: bool,
    record: bool,
) -> Slope:
    """Loss and gradient; by a formula for Conv4 where ``bend`` is wanted, otherwise by autograd.

    Args:
        network: runs the support; differentiable twice where ``keep``.
        weights: where.
        adapted: places in ``weights`` of the tensors that the gradient is taken of.
        support, labels: images and classes.
        keep: what ``bend`` needs.
        record: remember the statistics, for ``network.seen()``.
    """
    if keep and network.written_out:
        return _written_out(network, weights, adapted, support, labels, record=record)
    start = network.leaves(weights)
    loss = network.loss(network.support_logits(start, support, record=record), labels)
    gradient = torch.autograd.grad(loss, [start[i] for i in adapted], create_graph=keep, materialize_grads=True)

    if keep and not network.looked_through:
        _refuse_an_end(gradient)
        network.looked_through = True

    def bend(v: Sequence[Tensor]) -> Sequence[Tensor | None]:
        return torch.autograd.grad(gradient, start, grad_outputs=v, allow_unused=True)

    return Slope(loss.detach(), [slope.detach() for slope in gradient], bend if keep else None)


@torch.no_grad()
def _written_out(
    network: AnyNetwork, weights: Weights, adapted: Sequence[int], support: Tensor, labels: Tensor, *, record: bool
) -> Slope:
    kind = network.of_derivatives or weights[0].dtype
    *many, x, y = network.stack([*weights, support, labels])
    loss, gradient, tape, seen = conv4_curvature.gradient(many, x, y, network.eps, kind)
    if record:
        network.remember(seen)

    @torch.no_grad()
    def bend(v: Sequence[Tensor]) -> Sequence[Tensor | None]:
        full = [torch.zeros_like(weight) for weight in weights]
        for i, part in zip(adapted, v, strict=True):
            full[i] = part
        return network.unstack(conv4_curvature.bend(tape, network.stack(full)))

    gradient = network.unstack(gradient)
    return Slope(loss, [gradient[i] for i in adapted], bend)


def _refuse_an_end(gradient: Sequence[Tensor]) -> None:
    """Raise where a gradient's graph ends in an operation that cannot be differentiated again.

    Trap: torch puts an error there that is raised only by who passes it; a gradient that is asked of what lies beyond
    does not, and is silently none.
    """
    waiting = [slope.grad_fn for slope in gradient if slope.grad_fn is not None]
    met = set(waiting)
    while waiting:
        node = waiting.pop()
        if node.name().endswith("Error"):
            raise RuntimeError("trying to differentiate twice a function that was marked with @once_differentiable")
        new = [other for other, _ in node.next_functions if other is not None and other not in met]
        met.update(new)
        waiting.extend(new)
