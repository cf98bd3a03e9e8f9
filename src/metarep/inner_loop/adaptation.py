"""Adapting to tasks for good: weights that are kept, for evaluation and use; no graph remains."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarep.inner_loop.adam import Adam
from metarep.inner_loop.network import Network
from metarep.inner_loop.stacked import AnyNetwork, StackedNetwork, stacked
from metarep.inner_loop.start import Start
from metarep.inner_loop.task import InnerLoop, refuse_blow_up, take_step
from metarep.normalisation import Statistics
from metarep.randomness import run_alike, useful_workers


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
        found = []
        for t in range(len(self.weights[0])):
            own = None if self.adam is None else self.adam.task(t)
            statistics = [(mean[t], variance[t]) for mean, variance in self.statistics]
            found.append(Adapted([weight[t] for weight in self.weights], statistics, own))
        return found


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
        settle: pass the whole support once more, for its statistics under the weights that it ended with. Otherwise
            they are those of the start, as its first step saw them.

    Raises:
        MetarepError: the support loss of a task is no longer a number before one of the steps; it is named.
    """
    precise = adam is None  # Adam's steps are as long whatever the slope is, and Reptile trains by them
    body = [weight.detach() for weight in start.body]
    with torch.no_grad():
        table = start.table(inner.steps)

    def work(network: AnyNetwork, body: list[Tensor], x: Tensor, y: Tensor) -> Adapted:
        with torch.no_grad():
            features = network.features(body, x) if start.head.kind == "prototype" else None
            weights = [*body, *(part.detach() for part in network.classifier(start.head, ways, features, y))]
        state = adam.of_task(inner.adapted, weights) if adam else None
        rows = _mini_batches(y, minibatch, inner.steps)
        for step in range(inner.steps):
            part = rows[step]
            with torch.enable_grad():
                moved, taken = take_step(
                    network, inner, weights, table[step], x[part], y[part], step,
                    keep=False, record=not settle and step == 0,
                )  # fmt: skip
            weights = state.step(inner.adapted, weights, taken.gradient) if state else moved
        if settle or not inner.steps:
            with torch.no_grad():
                refuse_blow_up(network.loss(network.support_logits(weights, x, record=True), y), inner.steps)
        return Adapted(weights, network.seen(), state)

    if stacked(start.encoder.body, support):
        network, found = StackedNetwork(start.encoder, start.normalisation, differentiable=False, precise=precise), []
        for x, y in network.portions(support, labels):
            many = [weight.expand(len(x), *weight.shape) for weight in body]
            found += work(network, many, x, y).tasks()
        return found
    workers = useful_workers(start.encoder.body, support.device)
    networks = [
        Network(start.encoder, start.normalisation, differentiable=False, precise=precise) for _ in range(workers)
    ]
    tasks = list(zip(support, labels, strict=True))
    return run_alike(start.encoder.body, lambda worker, task: work(networks[worker], body, *task), tasks, workers)


def query_logits(
    start: Start, adapted: Sequence[Adapted], query: Float[Tensor, "task query c h w"]
) -> Float[Tensor, "task query ways"]:
    """Scores of each task's queries under its own weights and statistics.

    Args:
        start: encoder, and whose statistics: those of ``adapted`` (support), the queries' (transductive), or running.
        adapted: what each task ended with.
        query: preprocessed images.
    """
    if stacked(start.encoder.body, query):
        network = StackedNetwork(start.encoder, start.normalisation, differentiable=False)
        weights = [torch.stack(parts) for parts in zip(*(own.weights for own in adapted), strict=True)]
        statistics = [
            (torch.stack([mean for mean, _ in layer]), torch.stack([variance for _, variance in layer]))
            for layer in zip(*(own.statistics for own in adapted), strict=True)
        ]
        flat = [part for pair in statistics for part in pair]
        found = []
        with torch.no_grad():
            for x, *parts in network.portions(query, *weights, *flat):
                own = list(zip(parts[len(weights) :: 2], parts[len(weights) + 1 :: 2], strict=True))
                found.append(network.query_logits(parts[: len(weights)], x, statistics=own))
        return torch.cat(found)
    workers = useful_workers(start.encoder.body, query.device)
    networks = [Network(start.encoder, start.normalisation, differentiable=False) for _ in range(workers)]

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
