"""Loss and gradient of a batch of tasks, computed together: one task after another on threads, or all at once."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from metarep.errors import Advice, MetarepError
from metarep.inner_loop.convolution import rounding
from metarep.inner_loop.exact import TaskGradient, task_gradient
from metarep.inner_loop.head import Head
from metarep.inner_loop.network import Network
from metarep.inner_loop.rates import Rate
from metarep.inner_loop.recording import replay
from metarep.inner_loop.stacked import StackedNetwork
from metarep.inner_loop.start import Start
from metarep.inner_loop.task import InnerLoop, Task
from metarep.normalisation import Statistics
from metarep.randomness import run_alike, useful_workers

# What torch says of an operation whose derivative has none, or of a function that was compiled.
_ONCE = ("is not implemented", "differentiate twice", "double backward")

Totals = tuple[Tensor, list[Tensor], list[list[Tensor]], list[Statistics]]  # as TaskGradient, summed over tasks


def one_by_one(
    start: Start,
    inner: InnerLoop,
    ways: int,
    body: list[Tensor],
    classifier: tuple[Tensor, ...],
    table: Sequence[Sequence[Rate]],
    tasks: Task,
) -> Totals:
    """Each task by itself; the arguments are those of :func:`task_gradient`."""
    singles = tasks.singles()
    workers = useful_workers(start.encoder.body, tasks.support.device)
    networks = [
        (
            Network(start.encoder, start.normalisation, differentiable=inner.order == 2, precise=True),
            Network(start.encoder, start.normalisation, differentiable=False, precise=start.head.kind == "prototype"),
        )
        for _ in range(min(workers, len(singles)))
    ]

    def work(worker: int, task: Task) -> TaskGradient:
        slow, fast = networks[worker]
        try:
            with torch.enable_grad():  # whatever the caller's mode is: threads have their own
                return task_gradient(slow, fast, inner, body, start.head, classifier, ways, table, task)
        except RuntimeError as error:
            if inner.order == 1 or not any(said in str(error) for said in _ONCE):
                raise
            raise MetarepError(
                f"something in {type(start.encoder.body).__name__} can be differentiated only once, and the second "
                f"order needs it twice (torch says: {error})",
                advice=(Advice("take {order}", order=1), "put another layer there"),
            ) from error

    found = run_alike(start.encoder.body, work, singles, workers)
    rates = [
        [_total([one.rates[step][i] for one in found]) for i in range(len(inner.adapted))]
        for step in range(inner.steps)
    ]
    weights = [_total([one.weights[i] for one in found]) for i in range(len(found[0].weights))]
    return _total([one.loss for one in found]), weights, rates, [one.seen for one in found]


def all_at_once(
    start: Start,
    inner: InnerLoop,
    ways: int,
    body: list[Tensor],
    classifier: tuple[Tensor, ...],
    table: Sequence[Sequence[Rate]],
    tasks: Task,
) -> Totals:
    """The same of all tasks by one network; on an NVIDIA GPU recorded, and replayed as one launch."""
    waits = tasks.support.device.type != "cpu"  # and a look at a loss would keep the processor from going ahead
    made = partial(StackedNetwork, start.encoder, start.normalisation, checked=not waits)
    large = start.head.kind == "prototype"  # logits, which feel the rounding of bfloat16
    slow = made(differentiable=inner.order == 2, precise=True)
    fast = made(differentiable=False, precise=large, rough=large and start.encoder.precision == "bfloat16")
    compute = partial(_totals_at_once, slow, fast, inner, start.head, ways)
    arguments = body, classifier, table, tuple(tasks)
    if tasks.support.device.type != "cuda" or inner.weights is not None:  # weights that are others in every step
        return compute(*arguments)
    kept = tuple(part.data_ptr() for pair in slow.running or () for part in pair)
    key = inner, start.head.kind, ways, start.normalisation, start.encoder.precision, slow.eps, kept, rounding()
    return replay(start.encoder.body, key, compute, arguments)


def _totals_at_once(
    slow: StackedNetwork,
    fast: StackedNetwork,
    inner: InnerLoop,
    head: Head,
    ways: int,
    body: list[Tensor],
    classifier: tuple[Tensor, ...],
    table: Sequence[Sequence[Rate]],
    tasks: tuple[Tensor, ...],
) -> Totals:
    each = len(tasks[0])
    many, at = ([part.expand(each, *part.shape) for part in parts] for parts in (body, classifier))
    with torch.enable_grad():
        found = task_gradient(slow, fast, inner, many, head, tuple(at), ways, table, Task(*tasks))
    weights = [slope.sum(0) for slope in found.weights]
    rates = [[slope.sum(0) for slope in row] for row in found.rates]
    return found.loss, weights, rates, [mean_over_tasks(found.seen)]


def mean_over_tasks(statistics: Statistics) -> Statistics:
    return [(mean.detach().mean(0), variance.detach().mean(0)) for mean, variance in statistics]


def _total(parts: Sequence[Tensor]) -> Tensor:
    """Their sum, in their order: the same to the bit whatever thread was first."""
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total
