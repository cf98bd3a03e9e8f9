"""The support loss: its gradient, and the product of a vector with its Hessian."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarep.learners.inner_loop.slope import Slope, Weights
from metarep.learners.inner_loop.task_network import TaskNetwork


def support_slope(
    network: TaskNetwork,
    weights: Weights,
    adapted: Sequence[int],
    support: Float[Tensor, "*task support c h w"],
    labels: Int[Tensor, "*task support"],
    *,
    keep: bool,
    record: bool,
) -> Slope:
    """Loss and gradient; where ``bend`` is wanted by the network's formula if it has one, otherwise by autograd.

    Args:
        network: runs the support; differentiable twice where ``keep``.
        weights: where.
        adapted: places in ``weights`` of the tensors that the gradient is taken of.
        support, labels: images and classes.
        keep: what ``bend`` needs.
        record: keep the support's batch statistics.
    """
    if keep and network.formula is not None:
        return network.formula(weights, adapted, support, labels)
    start = network.leaves(weights)
    loss = network.loss(network.support_logits(start, support, record=record), labels)
    seen = network.seen() if record else []
    gradient = torch.autograd.grad(loss, [start[i] for i in adapted], create_graph=keep, materialize_grads=True)

    if keep and not network.looked_through:
        _refuse_an_end(gradient)
        network.looked_through = True

    def bend(v: Sequence[Tensor]) -> Sequence[Tensor | None]:
        return torch.autograd.grad(gradient, start, grad_outputs=v, allow_unused=True)

    return Slope(loss.detach(), [slope.detach() for slope in gradient], bend if keep else None, seen)


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
