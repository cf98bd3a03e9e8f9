"""Adapts to tasks for evaluation and use: the adapted weights are kept, without a graph."""

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
from metarep.learners.inner_loop.task import InnerLoop, refuse_blow_up, take_step
from metarep.learners.inner_loop.task_network import TaskNetwork
from metarep.machine import faster
from metarep.machine.randomness import run_alike, useful_workers


@dataclass
class Adapted:
    """What one task ends with.

    Args:
        weights: of the body, then the head's weight and bias.
        statistics: of the support under these weights, or of what the first step saw under those of the start.
        adam: the optimiser's state, where there is one.
    """

    weights: list[Tensor]
    statistics: Statistics = field(default_factory=list)
    adam: Adam | None = None

    def tasks(self) -> list["Adapted"]:
        """One by one, of what many tasks end with at once, the task axis first."""
        each = []
        for t in range(len(self.weights[0])):
            own = None if self.adam is None else self.adam.task(t)
            statistics = [(mean[t], variance[t]) for mean, variance in self.statistics]
            each.append(Adapted([weight[t] for weight in self.weights], statistics, own))
        return each


@dataclass(frozen=True)
class Stepping:
    """How to step: what is the same for all tasks that are adapted together.

    Args:
        inner: steps and what they change.
        adam: step by this optimiser's state, copied for each task, instead of plain gradient descent.
        minibatch: images a step, evenly of every class, cycling through the support; 0 for all of it.
        settle: run the whole support once more after the last step, so that the statistics belong to the adapted
            weights. Otherwise they are those of the start, as the first step saw them.
    """

    inner: InnerLoop
    adam: Adam | None = None
    minibatch: int = 0
    settle: bool = True

    @property
    def precise(self) -> bool:
        """Whether steps need float32. Adam's are as long whatever the gradient is, and Reptile trains by them."""
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
    settle: bool = True,
) -> list[Adapted]:
    """Adapt to each task from the same start.

    Args:
        start: encoder, head and rates.
        inner: steps and what they change.
        support, labels: preprocessed images and their classes.
        ways: classes a task.
        adam: step by this optimiser's state, copied for each task, instead of plain gradient descent.
        minibatch: images a step, evenly of every class, cycling through the support; 0 for all of it.
        settle: run the whole support once more after the last step, for the statistics; see :class:`Stepping`.

    Raises:
        MetarepError: the support loss of a task is no longer a number before one of the steps; it is named.
    """
    how = Stepping(replace(inner, order=1), adam, minibatch, settle)
    if (many := faster.many_tasks(start, support)) is not None:
        return many.adapt(how, support, labels, ways)
    with torch.no_grad():
        at = start.for_tasks(ways, inner.steps).detached()
    workers = useful_workers(start.encoder.body, support.device)
    networks = [Network(start, differentiable=False, precise=how.precise) for _ in range(workers)]
    tasks = list(zip(support, labels, strict=True))
    return run_alike(start.encoder.body, lambda worker, task: adapt(networks[worker], at, how, *task), tasks, workers)


def adapt(network: TaskNetwork, start: TaskStart, how: Stepping, x: Tensor, y: Tensor) -> Adapted:
    """Adapt to one task; or to many, with the task axis first, where the network takes them.

    Args:
        network: runs the support, for first derivatives.
        start: weights and rates, without a graph.
        how: the steps.
        x, y: support images and labels.
    """
    inner, head = how.inner, start.start.head
    with torch.no_grad():
        features = network.features(start.body, x) if head.kind == "prototype" else None
        weights = [*start.body, *(part.detach() for part in network.classifier(head, start.ways, features, y))]
    state = how.adam.of_task(inner.adapted, weights) if how.adam else None
    rows, seen = _mini_batches(y, how.minibatch, inner.steps), []
    for step in range(inner.steps):
        part, first = rows[step], step == 0 and not how.settle
        with torch.enable_grad():
            moved, slope = take_step(network, inner, weights, start.table[step], x[part], y[part], step, record=first)
        seen = slope.seen if first else seen
        weights = state.step(inner.adapted, weights, slope.gradient) if state else moved
    if how.settle or not inner.steps:
        with torch.no_grad():
            refuse_blow_up(network.loss(network.support_logits(weights, x, record=True), y), inner.steps)
        seen = network.seen()
    return Adapted(weights, seen, state)


def query_logits(
    start: Start, adapted: Sequence[Adapted], query: Float[Tensor, "task query c h w"]
) -> Float[Tensor, "task query ways"]:
    """Scores of each task's queries under its own weights and statistics.

    Args:
        start: encoder, and whose statistics: those of ``adapted`` (support), the queries' (transductive), or running.
        adapted: what each task ended with.
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
    """Index of each step's mini-batch: the first of every class, then the second, and around the end if need be."""
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
