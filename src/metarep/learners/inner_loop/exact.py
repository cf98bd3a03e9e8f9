"""The meta-gradient of one task, exact to second order, without a graph through the query pass.

Let ``w[i+1] = w[i] - a[i] * g(w[i])`` be the inner steps on the support loss, whose gradient is ``g``. The query loss
needs first derivatives only, taken at the adapted weights: ``v = dL/dw[k]``. They are carried back through the steps by
Hessian-vector products on the *support* images alone, which are few:

    v <- v - H(w[i]) (a[i] * v)        and        dL/da[i] = -g(w[i]) * v

So the many query images pass the network once forward and once back, in the fastest format there is, and only the
support is differentiated twice, in float32: by autograd, or for Conv4 by a formula
(:func:`metarep.machine.faster.support_formula`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from metarep.encoders.normalisation import Statistics
from metarep.learners.inner_loop.start import TaskStart
from metarep.learners.inner_loop.support_gradient import SupportGradient, Weights
from metarep.learners.inner_loop.task import InnerLoop, SupportDescent, Task
from metarep.learners.inner_loop.task_network import TaskNetwork


@dataclass(frozen=True)
class TaskGradient:
    """The query loss of a task and its gradient.

    Args:
        loss: the query loss, weighted over the steps.
        weights: its gradient in each tensor of body and head at the start.
        rates: for each step, its gradient in the rate of each adapted tensor (one value for each number of the tensor).
        seen: batch statistics of the support set at the start.
    """

    loss: Tensor
    weights: list[Tensor]
    rates: list[list[Tensor]]
    seen: Statistics


def task_gradient(slow: TaskNetwork, fast: TaskNetwork, start: TaskStart, inner: InnerLoop, task: Task) -> TaskGradient:
    """Computes the exact gradient of one task's query loss; with networks that run many tasks, of the sum over them.

    Args:
        slow: runs the support set; it must be differentiable twice for the second order.
        fast: runs the queries, for first derivatives.
        start: weights and rates where the task starts, without a graph.
        inner: steps, order and loss weights.
        task: images and labels.

    Raises:
        MetarepError: the support loss is NaN or infinite. The message names the step.
    """
    prototypes, origin = (None, None) if start.classifier else _prototypes(slow, start, task)
    weights = [*start.body, *(start.classifier or prototypes or ())]
    descent, step_gradients = SupportDescent(slow, inner, start), list[SupportGradient]()
    losses: list[Tensor] = []
    query_gradients: list[list[Tensor] | None] = []
    for step in range(inner.steps + 1):
        loss, gradient = _query_gradient(fast, weights, task, inner.weight_after(step))
        losses.extend([] if loss is None else [loss])
        query_gradients.append(gradient)
        if step < inner.steps:
            weights, step_gradient = descent.take_step(step, weights, task.support, task.support_y, record=step == 0)
            step_gradients.append(step_gradient)
    seen = step_gradients[0].seen if step_gradients else []
    adjoints, rates = _carry_back(inner, start, step_gradients, query_gradients)
    if prototypes is not None and origin is not None:
        body_adjoints = torch.autograd.grad(prototypes, origin, grad_outputs=adjoints[-2:], materialize_grads=True)
        adjoints = [*(one + two for one, two in zip(adjoints[:-2], body_adjoints, strict=True)), *adjoints[-2:]]
    return TaskGradient(torch.stack(losses).sum(), adjoints, rates, seen)


def _prototypes(slow: TaskNetwork, start: TaskStart, task: Task) -> tuple[tuple[Tensor, Tensor], list[Tensor]]:
    """Returns the classifier that is computed from the body's features, and the leaves of its graph."""
    origin = slow.leaves(start.body)
    features = slow.features(origin, task.support)
    return slow.classifier(start.start.head, start.ways, features, task.support_y), origin


def _query_gradient(
    fast: TaskNetwork, weights: Weights, task: Task, share: float
) -> tuple[Tensor | None, list[Tensor] | None]:
    """Returns the query loss times ``share`` and its gradient at these weights; None if the share is 0."""
    if not share:
        return None, None
    leaves = fast.leaves(weights)
    loss = fast.loss(fast.query_logits(leaves, task.query, task.support), task.query_y) * share
    return loss.detach(), list(torch.autograd.grad(loss, leaves, materialize_grads=True))


def _carry_back(
    inner: InnerLoop,
    start: TaskStart,
    step_gradients: list[SupportGradient],
    query_gradients: list[list[Tensor] | None],
) -> tuple[list[Tensor], list[list[Tensor]]]:
    """Carries the query gradient back from the adapted weights to the start.

    Args:
        inner: the order, and which tensors the steps changed.
        start: the rates of each step.
        step_gradients: the support gradient of each step, in order.
        query_gradients: the gradient of the query loss after 0, 1, ... steps; None where its weight is 0.

    Returns:
        The gradient at the start (a part for each tensor), and the gradient in the rates of each step.
    """
    adjoints = query_gradients[-1]
    assert adjoints is not None, "the last step has a share of the loss"
    rates: list[list[Tensor]] = []
    steps = zip(step_gradients, query_gradients[:-1], start.table, strict=True)
    for step_gradient, query_gradient, row in reversed(list(steps)):
        chosen = [adjoints[i] for i in inner.adapted]
        rates.append([-part * v for part, v in zip(step_gradient.gradient, chosen, strict=True)])
        if step_gradient.hessian_vector_product is not None:
            products = step_gradient.hessian_vector_product([v * rate for v, rate in zip(chosen, row, strict=True)])
            adjoints = [v if part is None else v - part for v, part in zip(adjoints, products, strict=True)]
        if query_gradient is not None:
            adjoints = [v + part for v, part in zip(adjoints, query_gradient, strict=True)]
    return adjoints, rates[::-1]
