"""The query loss of one task as a plain differentiable function: for accelerators, and as a reference in tests."""

from torch import Tensor
from torch.func import grad
from torch.nn.functional import cross_entropy

from metarep.encoders.normalisation import Statistics
from metarep.learners.inner_loop.network import Network
from metarep.learners.inner_loop.start import TaskStart
from metarep.learners.inner_loop.task import InnerLoop, Task


def task_loss(network: Network, start: TaskStart, inner: InnerLoop, task: Task) -> tuple[Tensor, Statistics]:
    """Returns the weighted query loss, and the batch statistics of the support set at the start.

    The loss is differentiable in body, head and rates. ``torch.func.vmap`` can map the function over tasks: it needs no
    host synchronisation, so it cannot check for NaN either.

    Args:
        network: a network that is differentiable twice.
        start: weights and rates where the task starts.
        inner: steps, order and loss weights.
        task: images and labels.
    """
    head = start.start.head
    features = network.features(start.body, task.support) if head.kind == "prototype" else None
    weights: list[Tensor] = [*start.body, *network.classifier(head, start.ways, features, task.support_y)]
    seen: Statistics = []
    total = weights[-1].new_zeros(())
    for step in range(inner.steps + 1):
        if share := inner.weight_after(step):
            total = total + share * cross_entropy(network.query_logits(weights, task.query, task.support), task.query_y)
        if step == inner.steps:
            break

        def loss(chosen: list[Tensor], at: list[Tensor] = weights) -> tuple[Tensor, Statistics]:
            full = list(at)
            for i, tensor in zip(inner.adapted, chosen, strict=True):
                full[i] = tensor
            value = cross_entropy(network.support_logits(full, task.support, record=True), task.support_y)
            return value, network.seen()

        gradients, statistics = grad(loss, has_aux=True)([weights[i] for i in inner.adapted])
        seen = seen or statistics
        weights = list(weights)
        for i, rate, gradient in zip(inner.adapted, start.table[step], gradients, strict=True):
            weights[i] = weights[i] - rate * (gradient.detach() if inner.order == 1 else gradient)
    return total, seen
