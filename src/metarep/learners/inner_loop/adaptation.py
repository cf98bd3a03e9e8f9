"""Adaptation to tasks for evaluation and use: the adapted weights are kept, without a graph."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarep.encoders.normalisation import Statistics
from metarep.learners.inner_loop.adam import Adam
from metarep.learners.inner_loop.network import Network
from metarep.learners.inner_loop.start import Start, TaskStart
from metarep.learners.inner_loop.task import InnerLoop, SupportDescent, require_finite_loss
from metarep.learners.inner_loop.task_network import TaskNetwork
from metarep.machine import faster
from metarep.machine.randomness import run_alike, useful_workers


@dataclass
class Adapted:
    """The result of adapting to one task; with a task axis first in every tensor, to many.

    Args:
        weights: the body's parameters, then the head's weight and bias.
        statistics: batch statistics of the support set under these weights. Without ``refresh_statistics`` they
            are those of the first step's images under the weights of the start.
        adam: the optimiser's state; None for plain gradient descent.
    """

    weights: list[Tensor]
    statistics: Statistics = field(default_factory=list)
    adam: Adam | None = None

    def tasks(self) -> list["Adapted"]:
        """Returns the results of the tasks one by one, where every tensor has the task axis first."""
        each = []
        for t in range(len(self.weights[0])):
            own = None if self.adam is None else self.adam.task(t)
            statistics = [(mean[t], variance[t]) for mean, variance in self.statistics]
            each.append(Adapted([weight[t] for weight in self.weights], statistics, own))
        return each


@dataclass(frozen=True)
class Stepping:
    """The settings of the steps, equal for all tasks that are adapted together.

    Args:
        inner: the number of steps, and which tensors they change.
        adam: the state that Adam starts from in each task; None for plain gradient descent.
        minibatch: images of a step, evenly of every class, cycling through the support set; 0 for all images.
        refresh_statistics: run the support set once more after the last step, so that the batch statistics belong to
            the adapted weights. Otherwise the batch statistics of the first step are kept.
    """

    inner: InnerLoop
    adam: Adam | None = None
    minibatch: int = 0
    refresh_statistics: bool = True

    @property
    def precise(self) -> bool:
        """Whether the steps need float32. Adam's do not: their length hardly depends on the gradient."""
        return self.adam is None


def adapt_tasks(
    start: Start,
    inner: InnerLoop,
    support: Float[Tensor, "task support c h w"],
    labels: Int[Tensor, "task support"],
    ways: int,
    *,
    adam: Adam | None = None,
    minibatch: int = 0,
    refresh_statistics: bool = True,
) -> list[Adapted]:
    """Adapts to each task from the same start and returns one result for each task.

    Args:
        start: encoder, head and rates.
        inner: the number of steps, and which tensors they change. The order is always 1 here.
        support, labels: preprocessed images and their classes.
        ways: number of classes of each task.
        adam, minibatch, refresh_statistics: as in :class:`Stepping`.

    Raises:
        MetarepError: the support loss of a task is NaN or infinite. The message names the step.
    """
    how = Stepping(replace(inner, order=1), adam, minibatch, refresh_statistics)
    if (many := faster.many_tasks(start, support)) is not None:
        return many.adapt(how, support, labels, ways)
    with torch.no_grad():
        at = start.for_tasks(ways, inner.steps).detached()
    workers = useful_workers(start.encoder.body, support.device)
    networks = [Network(start, differentiable=False, precise=how.precise) for _ in range(workers)]
    tasks = list(zip(support, labels, strict=True))
    return run_alike(start.encoder.body, lambda worker, task: adapt(networks[worker], at, how, *task), tasks, workers)


def adapt(network: TaskNetwork, start: TaskStart, how: Stepping, x: Tensor, y: Tensor) -> Adapted:
    """Adapts to one task; or to many, with the task axis first, if the network runs many.

    Args:
        network: runs the support set, for first derivatives.
        start: weights and rates, without a graph.
        how: the settings of the steps.
        x, y: support images and labels.

    Raises:
        MetarepError: the support loss is NaN or infinite. The message names the step.
    """
    inner, head = how.inner, start.start.head
    with torch.no_grad():
        features = network.features(start.body, x) if head.kind == "prototype" else None
        weights = [*start.body, *(part.detach() for part in network.classifier(head, start.ways, features, y))]
    state = how.adam.of_task(inner.adapted, weights) if how.adam else None
    rows, seen = _mini_batches(y, how.minibatch, inner.steps), []
    descent = SupportDescent(network, inner, start)
    for step in range(inner.steps):
        part, first = rows[step], step == 0 and not how.refresh_statistics
        with torch.enable_grad():
            moved, step_gradient = descent.take_step(step, weights, x[part], y[part], record=first)
        seen = step_gradient.seen if first else seen
        weights = state.step(inner.adapted, weights, step_gradient.gradient) if state else moved
    if how.refresh_statistics or not inner.steps:
        with torch.no_grad():
            require_finite_loss(network.loss(network.support_logits(weights, x, record=True), y), inner.steps)
        seen = network.seen()
    return Adapted(weights, seen, state)


def query_logits(
    start: Start, adapted: Sequence[Adapted], query: Float[Tensor, "task query c h w"]
) -> Float[Tensor, "task query ways"]:
    """Returns the logits of each task's queries under its own adapted weights.

    Args:
        start: the encoder, and which statistics its norm layers use: those of ``adapted`` (support), those of the
            queries (transductive) or the running ones.
        adapted: the result of adapting to each task.
        query: preprocessed images.
    """
    if (many := faster.many_tasks(start, query)) is not None:
        return many.query_logits(adapted, query)
    workers = useful_workers(start.encoder.body, query.device)
    networks = [Network(start, differentiable=False) for _ in range(workers)]

    def work(worker: int, task: tuple[Adapted, Tensor]) -> Tensor:
        own, x = task
        with torch.no_grad():
            network = networks[worker]
            return network.query_logits(network.leaves(own.weights), x, statistics=own.statistics)

    tasks = zip(adapted, query, strict=True)
    return torch.stack(run_alike(start.encoder.body, work, tasks, workers))


def _mini_batches(labels: Int[Tensor, "*task support"], minibatch: int, steps: int) -> list[Any]:
    """Returns the index of each step's mini-batch.

    The order is the first image of every class, then the second of every class, and so on. After the last image it
    starts again.
    """
    images = labels.shape[-1]
    if not 0 < minibatch < images:
        return [slice(None)] * steps
    earlier = torch.ones(images, images, device=labels.device).tril(-1).bool()
    order = (earlier & (labels.unsqueeze(-1) == labels.unsqueeze(-2))).sum(-1).argsort(stable=True)
    turns = [(torch.arange(minibatch) + step * minibatch) % images for step in range(steps)]
    if labels.ndim == 1:
        return [order[turn] for turn in turns]
    task = torch.arange(len(labels), device=labels.device).unsqueeze(1)
    return [(task, order[:, turn]) for turn in turns]
