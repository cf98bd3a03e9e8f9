"""Loss and gradient of a batch of tasks, computed one task after another, on threads."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metarep.encoders.normalisation import Statistics
from metarep.errors import Advice, MetarepError
from metarep.learners.inner_loop.exact import TaskGradient, task_gradient
from metarep.learners.inner_loop.network import Network
from metarep.learners.inner_loop.start import TaskStart
from metarep.learners.inner_loop.task import InnerLoop, Task
from metarep.machine.randomness import run_alike, useful_workers

# Parts of torch's messages for operations and compiled functions that cannot be differentiated twice.
_ONCE = ("is not implemented", "differentiate twice", "double backward")


class Totals(NamedTuple):
    """The fields of :class:`TaskGradient` summed over the tasks of a batch; ``seen`` has an item for each task."""

    loss: Tensor
    weights: list[Tensor]
    rates: list[list[Tensor]]
    seen: list[Statistics]


def one_by_one(start: TaskStart, inner: InnerLoop, tasks: Task) -> Totals:
    """Computes the sums over ``tasks``, whose parts have the task axis first, one task after another on threads.

    Raises:
        MetarepError: a support loss is NaN or infinite, or the body cannot be differentiated twice.
    """
    singles, encoder = tasks.singles(), start.start.encoder
    workers = useful_workers(encoder.body, tasks.support.device)
    precise = start.start.head.kind == "prototype"
    networks = [
        (
            Network(start.start, differentiable=inner.order == 2, precise=True),
            Network(start.start, differentiable=False, precise=precise),
        )
        for _ in range(min(workers, len(singles)))
    ]

    def work(worker: int, task: Task) -> TaskGradient:
        slow, fast = networks[worker]
        try:
            with torch.enable_grad():  # the gradient mode of the caller does not reach other threads
                return task_gradient(slow, fast, start, inner, task)
        except RuntimeError as error:
            if inner.order == 1 or not any(message in str(error) for message in _ONCE):
                raise
            raise MetarepError(
                f"a layer of {type(encoder.body).__name__} can be differentiated only once, and the second order "
                f"needs it twice (torch says: {error})",
                advice=(Advice("take {order}", order=1), "put another layer there"),
            ) from error

    each = run_alike(encoder.body, work, singles, workers)
    rates = [
        [_total([one.rates[step][i] for one in each]) for i in range(len(inner.adapted))] for step in range(inner.steps)
    ]
    weights = [_total([one.weights[i] for one in each]) for i in range(len(each[0].weights))]
    return Totals(_total([one.loss for one in each]), weights, rates, [one.seen for one in each])


def mean_over_tasks(statistics: Statistics) -> Statistics:
    """Returns the mean over the task axis of the mean and variance of each norm layer, without a graph."""
    return [(mean.detach().mean(0), variance.detach().mean(0)) for mean, variance in statistics]


def _total(parts: Sequence[Tensor]) -> Tensor:
    """Returns the sum in the order of the tasks, so that its bits do not depend on which thread was first."""
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total
