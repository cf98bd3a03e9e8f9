"""The support loss, its gradient and its Hessian-vector product."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarep.learners.inner_loop.support_gradient import SupportGradient, Weights
from metarep.learners.inner_loop.task_network import TaskNetwork


def differentiate_support(
    network: TaskNetwork,
    weights: Weights,
    adapted: Sequence[int],
    support: Float[Tensor, "*task support c h w"],
    labels: Int[Tensor, "*task support"],
    *,
    keep: bool,
    record: bool,
) -> SupportGradient:
    """Computes the support loss and its gradient, by autograd or by the formula of the network.

    The formula is used only for the second order, and only if the network has one.

    Args:
        network: runs the support set; it must be differentiable twice if ``keep``.
        weights: where the derivatives are taken.
        adapted: positions in ``weights`` of the tensors whose gradient is taken.
        support, labels: images and classes.
        keep: also give the Hessian-vector product, and keep what it needs.
        record: also give the batch statistics of the support set.

    Raises:
        RuntimeError: the gradient cannot be differentiated, and ``keep`` requests that.
    """
    if keep and network.formula is not None:
        return network.formula(weights, adapted, support, labels)
    start = network.leaves(weights)
    loss = network.loss(network.support_logits(start, support, record=record), labels)
    seen = network.seen() if record else []
    gradient = torch.autograd.grad(loss, [start[i] for i in adapted], create_graph=keep, materialize_grads=True)

    if keep and not network.looked_through:
        _require_differentiable(gradient)
        network.looked_through = True

    def hessian_vector_product(v: Sequence[Tensor]) -> Sequence[Tensor | None]:
        return torch.autograd.grad(gradient, start, grad_outputs=v, allow_unused=True)

    product = hessian_vector_product if keep else None
    return SupportGradient(loss.detach(), [part.detach() for part in gradient], product, seen)


def _require_differentiable(gradient: Sequence[Tensor]) -> None:
    """Raises if the graph of a gradient contains an operation that cannot be differentiated again.

    Trap: torch marks such an operation with an error node. Its error is raised only if a backward pass reaches the
    node. Otherwise the missing part of the derivative is silently None.
    """
    pending = [part.grad_fn for part in gradient if part.grad_fn is not None]
    visited = set(pending)
    while pending:
        node = pending.pop()
        if node.name().endswith("Error"):
            raise RuntimeError("trying to differentiate twice a function that was marked with @once_differentiable")
        new = [other for other, _ in node.next_functions if other is not None and other not in visited]
        visited.update(new)
        pending.extend(new)
