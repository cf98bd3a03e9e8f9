"""The query loss of a batch of tasks, by the fastest exact path for the device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from metarep.encoders import Encoder
from metarep.errors import one_of
from metarep.inner_loop.exact import TaskGradient, task_gradient
from metarep.inner_loop.head import Head
from metarep.inner_loop.network import Network, useful_workers
from metarep.inner_loop.plain import task_loss
from metarep.inner_loop.rates import Rate, Rates
from metarep.inner_loop.recording import replay
from metarep.inner_loop.stacked import StackedNetwork, stacked
from metarep.inner_loop.task import InnerLoop, Task
from metarep.normalisation import Normalisation, Statistics, update_running
from metarep.workers import run_tasks

Path = Literal["auto", "exact", "stacked", "mapped", "plain"]


@dataclass(frozen=True)
class Start:
    """Everything an inner loop starts from.

    Args:
        encoder: its body is what the steps adapt.
        head: the classifier on top.
        rates: inner learning rates.
        normalisation: whose statistics norm layers use.
    """

    encoder: Encoder
    head: Head
    rates: Rates
    normalisation: Normalisation

    @property
    def body(self) -> list[Tensor]:
        """The body's parameters, in the order in which weights are passed around."""
        return list(self.encoder.body.parameters())


def meta_loss(start: Start, inner: InnerLoop, tasks: Task, ways: int, path: Path = "auto") -> Float[Tensor, ""]:
    """The mean query loss over tasks, with the exact gradient in the body, the head and the rates.

    Paths, equal but for rounding: ``exact`` computes loss and gradient of each task in one go, tasks on threads of
    their own (processors); ``stacked`` the same for all tasks at once, which on an NVIDIA GPU is recorded and replayed
    as one launch (Conv4 on accelerators); ``mapped`` runs all tasks as one by vmap (other networks there); ``plain`` is
    the loop that a textbook has, one task after another.

    Args:
        start: encoder, head and rates; its norm layers' running statistics move to what the support sets saw.
        inner: what the inner loop does.
        tasks: preprocessed images and labels, the task axis first.
        ways: classes a task.
        path: ``auto`` chooses by the device and the network.

    Raises:
        MetarepError: a support loss is no longer a number (``exact`` alone looks), tasks of other ways than the head
            has rows, or a buffer that cannot be adapted.
    """
    one_of("path", path, get_args(Path))
    if path == "auto":
        on_device = stacked(start.encoder.body, tasks.support)
        path = "exact" if tasks.support.device.type == "cpu" else "stacked" if on_device else "mapped"
    table = start.rates.table(inner.steps)
    if path in ("exact", "stacked"):
        return _known(start, inner, tasks, ways, table, _stacked if path == "stacked" else _one_by_one)
    network = Network(start.encoder, start.normalisation, differentiable=True)

    def one(*parts: Tensor) -> tuple[Tensor, Statistics]:
        return task_loss(network, inner, start.body, start.head, ways, table, Task(*parts))

    if path == "mapped":
        losses, statistics = torch.func.vmap(one, randomness="different")(*tasks)
        # The mean over tasks is all that anybody asks for; a slice for each task and layer would be a launch for each.
        seen = [_mean_over_tasks(statistics)]
    else:
        each, seen = zip(*(one(*task) for task in _singles(tasks)), strict=True)
        losses = torch.stack(each)
    _remember(start, seen)
    return losses.mean()


def _singles(tasks: Task) -> list[Task]:
    return [Task(*parts) for parts in zip(*tasks, strict=True)]


def _mean_over_tasks(statistics: Statistics) -> Statistics:
    return [(mean.detach().mean(0), variance.detach().mean(0)) for mean, variance in statistics]


def _known(
    start: Start,
    inner: InnerLoop,
    tasks: Task,
    ways: int,
    table: Sequence[Sequence[Rate]],
    of_tasks: Callable[..., "Totals"],
) -> Float[Tensor, ""]:
    """The loss, with a gradient that is computed along with it."""
    fixed: tuple[Tensor, ...] = ()
    if start.head.kind != "prototype":
        weight, bias = start.head.start(ways, None, torch.zeros(1, 1, dtype=torch.long))
        fixed = weight[0], bias[0]
    plain = [weight.detach() for weight in start.body]
    at = tuple(part.detach() for part in fixed)
    rates = [[rate.detach() if isinstance(rate, Tensor) else rate for rate in row] for row in table]
    loss, weights, slopes, seen = of_tasks(start, inner, ways, plain, at, rates, tasks)
    _remember(start, seen)
    inputs = [*start.body, *fixed]
    gradients = weights[: len(inputs)]  # a head made of prototypes is no input
    for row, own in zip(table, slopes, strict=True):
        for rate, slope in zip(row, own, strict=True):
            if isinstance(rate, Tensor):
                inputs.append(rate)
                gradients.append(slope.sum() if rate.ndim == 0 else slope)
    share = 1 / len(tasks.support)
    return _WithGradient.apply(loss * share, torch._foreach_mul(gradients, share), *inputs)


Totals = tuple[Tensor, list[Tensor], list[list[Tensor]], list[Statistics]]  # as TaskGradient, summed over tasks


def _one_by_one(
    start: Start,
    inner: InnerLoop,
    ways: int,
    body: list[Tensor],
    classifier: tuple[Tensor, ...],
    table: Sequence[Sequence[Rate]],
    tasks: Task,
) -> Totals:
    singles = _singles(tasks)
    workers = useful_workers(start.encoder.body, tasks.support.device)
    networks = [
        tuple(Network(start.encoder, start.normalisation, differentiable=twice) for twice in (inner.order == 2, False))
        for _ in range(min(workers, len(singles)))
    ]

    def work(worker: int, task: Task) -> TaskGradient:
        slow, fast = networks[worker]
        with torch.enable_grad():  # whatever the caller's mode is: threads have their own
            return task_gradient(slow, fast, inner, body, start.head, classifier, ways, table, task)

    found = run_tasks(work, singles, workers)
    rates = [
        [_total([one.rates[step][i] for one in found]) for i in range(len(inner.adapted))]
        for step in range(inner.steps)
    ]
    weights = [_total([one.weights[i] for one in found]) for i in range(len(found[0].weights))]
    return _total([one.loss for one in found]), weights, rates, [one.seen for one in found]


def _stacked(
    start: Start,
    inner: InnerLoop,
    ways: int,
    body: list[Tensor],
    classifier: tuple[Tensor, ...],
    table: Sequence[Sequence[Rate]],
    tasks: Task,
) -> Totals:
    waits = tasks.support.device.type != "cpu"  # and a look at a loss would keep the processor from going ahead
    slow, fast = (
        StackedNetwork(start.encoder, start.normalisation, differentiable=twice, checked=not waits)
        for twice in (inner.order == 2, False)
    )
    compute = partial(_stacked_totals, slow, fast, inner, start.head, ways)
    arguments = body, classifier, table, tuple(tasks)
    if tasks.support.device.type != "cuda" or inner.weights is not None:  # weights that are others in every step
        return compute(*arguments)
    kept = tuple(part.data_ptr() for pair in slow.running or () for part in pair)
    key = inner, start.head.kind, ways, start.normalisation, start.encoder.precision, kept
    return replay(start.encoder.body, key, compute, arguments)


def _stacked_totals(
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
    return found.loss, weights, rates, [_mean_over_tasks(found.seen)]


class _WithGradient(torch.autograd.Function):
    """A value whose gradient is already known."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor], *inputs: Tensor) -> Tensor:  # noqa: ANN401, ARG004
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        return None, None, *torch._foreach_mul(ctx.gradients, above)


def _total(parts: Sequence[Tensor]) -> Tensor:
    """Their sum, in their order: the same to the bit whatever thread was first."""
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total


def _remember(start: Start, seen: Sequence[Statistics]) -> None:
    if start.encoder.training and all(seen):
        update_running(start.encoder.body, seen)
