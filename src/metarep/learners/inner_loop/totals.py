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

# What torch says of an operation whose derivative has none, or of a function that was compiled.
_ONCE = ("is not implemented", "differentiate twice", "double backward")


class Totals(NamedTuple):
    """Sums over the tasks of a batch of what :class:`TaskGradient` says of one; ``seen`` is a list over tasks."""

    loss: Tensor
    weights: list[Tensor]
    rates: list[list[Tensor]]
    seen: list[Statistics]


def one_by_one(start: TaskStart, inner: InnerLoop, tasks: Task) -> Totals:
    """The sums over ``tasks``, whose parts have the task axis first.

    Raises:
        MetarepError: a support loss is not finite, or the body cannot be differentiated twice.
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
            with torch.enable_grad():  # whatever the caller's mode is: threads have their own
                return task_gradient(slow, fast, start, inner, task)
        except RuntimeError as error:
            if inner.order == 1 or not any(said in str(error) for said in _ONCE):
                raise
            raise MetarepError(
                f"something in {type(encoder.body).__name__} can be differentiated only once, and the second "
                f"order needs it twice (torch says: {error})",
                advice=(Advice("take {order}", order=1), "put another layer there"),
            ) from error

    each = run_alike(encoder.body, work, singles, workers)
    rates = [
        [_total([one.rates[step][i] for one in each]) for i in range(len(inner.adapted))] for step in range(inner.steps)
    ]
    weights = [_total([one.weights[i] for one in each]) for i in range(len(each[0].weights))]
    return Totals(_total([one.loss for one in each]), weights, rates, [one.seen for one in each])


def mean_over_tasks(statistics: Statistics) -> Statistics:
    return [(mean.detach().mean(0), variance.detach().mean(0)) for mean, variance in statistics]


def _total(parts: Sequence[Tensor]) -> Tensor:
    """Their sum, in their order: the same to the bit whatever thread was first."""
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total
