"""The meta-gradient of one task, exact to second order, without a graph through the query pass.

Let ``w[i+1] = w[i] - a[i] * g(w[i])`` be the inner steps on the support loss, whose gradient is ``g``. The query loss
needs first derivatives only, taken at the adapted weights: ``v = dL/dw[k]``. They are carried back through the steps by
Hessian-vector products on the *support* images alone, which are few:

    v <- v - H(w[i]) (a[i] * v)        and        dL/da[i] = -g(w[i]) * v

So the many query images pass the network once forward and once back, in the fastest format there is, and only the
support is differentiated twice, in float32: by autograd, or for Conv4 by a formula
(:func:`metarep.machine.faster.support_formula`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metarep.encoders.normalisation import Statistics
from metarep.learners.inner_loop.rates import Rate
from metarep.learners.inner_loop.slope import Slope, Weights
from metarep.learners.inner_loop.start import TaskStart
from metarep.learners.inner_loop.task import InnerLoop, Task, take_step
from metarep.learners.inner_loop.task_network import TaskNetwork


@dataclass(frozen=True)
class TaskGradient:
    """The query loss of a task and its gradient.

    Args:
        loss: weighted over the steps.
        weights: gradient with respect to each tensor of body and head at the start.
        rates: for each step, with respect to the rate of each adapted tensor.
        seen: the support's statistics at the start.
    """

    loss: Tensor
    weights: list[Tensor]
    rates: list[list[Tensor]]
    seen: Statistics


def task_gradient(slow: TaskNetwork, fast: TaskNetwork, start: TaskStart, inner: InnerLoop, task: Task) -> TaskGradient:
    """The exact gradient of one task's query loss; of many tasks, where the networks take them, of the sum.

    Args:
        slow: runs the support; differentiable twice for the second order.
        fast: runs the queries.
        start: weights and rates where the task starts, without a graph.
        inner: steps, order, loss weights.
        task: its images and labels.

    Raises:
        MetarepError: the support loss is no longer a number before one of the steps; it is named.
    """
    started, origin = (None, None) if start.classifier else _prototypes(slow, start, task)
    weights = [*start.body, *(start.classifier or started or ())]
    trail: list[Slope] = []
    losses: list[Tensor] = []
    owed: list[list[Tensor] | None] = []
    for step in range(inner.steps + 1):
        loss, gradient = _outer(fast, weights, task, inner.weight_after(step))
        losses.extend([] if loss is None else [loss])
        owed.append(gradient)
        if step < inner.steps:
            weights, taken = take_step(
                slow, inner, weights, start.table[step], task.support, task.support_y, step, record=step == 0
            )
            trail.append(taken)
    seen = trail[0].seen if trail else []
    carried, rates = _carry_back(inner, trail, owed, start.table)
    if started is not None and origin is not None:
        back = torch.autograd.grad(started, origin, grad_outputs=carried[-2:], materialize_grads=True)
        carried = [*(one + two for one, two in zip(carried[:-2], back, strict=True)), *carried[-2:]]
    return TaskGradient(torch.stack(losses).sum(), carried, rates, seen)


def _prototypes(slow: TaskNetwork, start: TaskStart, task: Task) -> tuple[tuple[Tensor, Tensor], list[Tensor]]:
    """The classifier that depends on the body, and the body's weights as the graph knows them."""
    origin = slow.leaves(start.body)
    features = slow.features(origin, task.support)
    return slow.classifier(start.start.head, start.ways, features, task.support_y), origin


def _outer(fast: TaskNetwork, weights: Weights, task: Task, share: float) -> tuple[Tensor | None, list[Tensor] | None]:
    """The query loss at these weights times its share, and its first derivatives there."""
    if not share:
        return None, None
    leaves = fast.leaves(weights)
    loss = fast.loss(fast.query_logits(leaves, task.query, task.support), task.query_y) * share
    return loss.detach(), list(torch.autograd.grad(loss, leaves, materialize_grads=True))


def _carry_back(
    inner: InnerLoop, trail: list[Slope], owed: list[list[Tensor] | None], table: Sequence[Sequence[Rate]]
) -> tuple[list[Tensor], list[list[Tensor]]]:
    """From derivatives at the adapted weights to those at the start, and those of the rates.

    Args:
        inner: order, and which tensors the steps changed.
        trail: the slopes that the steps went down, in order.
        owed: derivatives of the query loss after 0, 1, ... steps; None where that has no share.
        table: rates of each step.
    """
    carried = owed[-1]
    assert carried is not None, "the last step has a share of the loss"
    rates: list[list[Tensor]] = []
    for taken, due, row in zip(reversed(trail), reversed(owed[:-1]), reversed(table), strict=True):
        chosen = [carried[i] for i in inner.adapted]
        rates.append([-slope * v for slope, v in zip(taken.gradient, chosen, strict=True)])
        if taken.bend is not None:
            bent = taken.bend([v * rate for v, rate in zip(chosen, row, strict=True)])
            carried = [v if b is None else v - b for v, b in zip(carried, bent, strict=True)]
        if due is not None:
            carried = [v + d for v, d in zip(carried, due, strict=True)]
    return carried, rates[::-1]
