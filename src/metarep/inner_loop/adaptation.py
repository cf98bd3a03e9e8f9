"""Adapting to tasks for good: weights that are kept, for evaluation and use; no graph remains."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from metarep.inner_loop.adam import Adam
from metarep.inner_loop.meta_loss import Start
from metarep.inner_loop.network import Network, useful_workers
from metarep.inner_loop.task import InnerLoop, refuse_blow_up, take_step
from metarep.normalisation import Statistics
from metarep.workers import run_tasks


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
    body = [weight.detach() for weight in start.body]
    with torch.no_grad():
        table = start.rates.table(inner.steps)
    workers = useful_workers(start.encoder.body, support.device)
    networks = [Network(start.encoder, start.normalisation, differentiable=False) for _ in range(workers)]

    def work(worker: int, task: tuple[Tensor, Tensor]) -> Adapted:
        (x, y), network = task, networks[worker]
        with torch.no_grad():
            features = network.features(body, x).unsqueeze(0) if start.head.kind == "prototype" else None
            weight, bias = start.head.start(ways, features, y.unsqueeze(0))
        weights = [*body, weight[0].detach(), bias[0].detach()]
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
                refuse_blow_up(cross_entropy(network.support_logits(weights, x, record=True), y), inner.steps)
        return Adapted(weights, network.seen(), state)

    return run_tasks(work, list(zip(support, labels, strict=True)), workers)


def query_logits(
    start: Start, adapted: Sequence[Adapted], query: Float[Tensor, "task query c h w"]
) -> Float[Tensor, "task query ways"]:
    """Scores of each task's queries under its own weights and statistics.

    Args:
        start: encoder, and whose statistics: those of ``adapted`` (support), the queries' (transductive), or running.
        adapted: what each task ended with.
        query: preprocessed images.
    """
    workers = useful_workers(start.encoder.body, query.device)
    networks = [Network(start.encoder, start.normalisation, differentiable=False) for _ in range(workers)]

    def work(worker: int, task: tuple[Adapted, Tensor]) -> Tensor:
        own, x = task
        with torch.no_grad():
            network = networks[worker]
            return network.query_logits(network.leaves(own.weights), x, statistics=own.statistics)

    return torch.stack(run_tasks(work, list(zip(adapted, query, strict=True)), workers))


def _mini_batches(labels: Int[Tensor, " support"], minibatch: int, steps: int) -> list[Tensor | slice]:
    """Rows of each step's mini-batch: the first of every class, then the second, and around the end if need be."""
    images = len(labels)
    if not 0 < minibatch < images:
        return [slice(None)] * steps
    earlier = torch.ones(images, images).tril(-1).bool() & (labels.unsqueeze(1) == labels.unsqueeze(0)).cpu()
    order = earlier.sum(1).argsort(stable=True)
    return [order[(torch.arange(minibatch) + step * minibatch) % images] for step in range(steps)]
