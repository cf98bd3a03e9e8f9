"""ManyTasks: the inner loop of all tasks of a batch at once, for Conv4 on NVIDIA GPUs."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarep.fast.conv4_block import as_made
from metarep.fast.convolution import rounding
from metarep.fast.cuda_graph import replay
from metarep.fast.stacked import StackedNetwork
from metarep.learners.inner_loop.adaptation import Adapted, Stepping, adapt
from metarep.learners.inner_loop.exact import task_gradient
from metarep.learners.inner_loop.rates import Rate
from metarep.learners.inner_loop.start import Start, TaskStart
from metarep.learners.inner_loop.task import InnerLoop, Task
from metarep.learners.inner_loop.totals import Totals, mean_over_tasks


def many_tasks(start: Start, x: Tensor, *, always: bool = False) -> "ManyTasks | None":
    """As :func:`metarep.machine.faster.many_tasks`."""
    return ManyTasks(start) if always or (x.is_cuda and as_made(start.encoder.body)) else None


class ManyTasks:
    """The inner loop of all tasks of a batch at once.

    Args:
        start: the modules that the tasks start from; its encoder is a Conv4.
    """

    def __init__(self, start: Start) -> None:
        self.start = start

    def totals(self, start: TaskStart, inner: InnerLoop, tasks: Task) -> Totals:
        """As :func:`metarep.learners.inner_loop.totals.one_by_one`; on an NVIDIA GPU by a CUDA graph."""
        on_cpu = tasks.support.device.type == "cpu"  # elsewhere each check of a loss is a host synchronisation
        made = partial(StackedNetwork, self.start, checked=on_cpu)
        head, precision = self.start.head, self.start.encoder.precision
        large = head.kind == "prototype"  # its logits are too large for the rounding of bfloat16
        slow = made(differentiable=inner.order == 2, precise=True)
        fast = made(differentiable=False, precise=large, rough=large and precision == "bfloat16")
        compute = partial(_totals, slow, fast, self.start, inner, start.ways)
        arguments = start.body, start.classifier, start.table, tuple(tasks)
        # With a multi-step loss the weights change from call to call, and a CUDA graph would hold the old ones.
        if tasks.support.device.type != "cuda" or inner.weights is not None:
            return compute(*arguments)
        addresses = tuple(part.data_ptr() for pair in slow.running or () for part in pair)
        key = inner, head.kind, start.ways, self.start.normalisation, precision, slow.eps, addresses, rounding()
        return replay(self.start.encoder.body, key, compute, arguments)

    def adapt(
        self, how: Stepping, support: Float[Tensor, "task n c h w"], labels: Int[Tensor, "task n"], ways: int
    ) -> list[Adapted]:
        """As :func:`metarep.learners.inner_loop.adaptation.adapt_tasks`."""
        network = StackedNetwork(self.start, differentiable=False, precise=how.precise)
        with torch.no_grad():
            start = self.start.for_tasks(ways, how.inner.steps).detached()
        adapted = []
        for x, y in network.portions(support, labels):
            body = [weight.expand(len(x), *weight.shape) for weight in start.body]
            adapted += adapt(network, replace(start, body=body), how, x, y).tasks()
        return adapted

    @torch.no_grad()
    def query_logits(
        self, adapted: Sequence[Adapted], query: Float[Tensor, "task query c h w"]
    ) -> Float[Tensor, "task query ways"]:
        """As :func:`metarep.learners.inner_loop.adaptation.query_logits`."""
        network = StackedNetwork(self.start, differentiable=False)
        weights = [torch.stack(parts) for parts in zip(*(own.weights for own in adapted), strict=True)]
        statistics = [
            torch.stack(parts)
            for layer in zip(*(own.statistics for own in adapted), strict=True)
            for parts in zip(*layer, strict=True)
        ]
        logits = []
        for x, *parts in network.portions(query, *weights, *statistics):
            means, variances = parts[len(weights) :: 2], parts[len(weights) + 1 :: 2]
            own = list(zip(means, variances, strict=True))
            logits.append(network.query_logits(parts[: len(weights)], x, statistics=own))
        return torch.cat(logits)


def _totals(
    slow: StackedNetwork,
    fast: StackedNetwork,
    start: Start,
    inner: InnerLoop,
    ways: int,
    body: list[Tensor],
    classifier: tuple[Tensor, ...],
    table: Sequence[Sequence[Rate]],
    tasks: tuple[Tensor, ...],
) -> Totals:
    """Computes the totals from nested lists and tuples of tensors, as a captured function takes them."""
    each = len(tasks[0])
    many, at = ([part.expand(each, *part.shape) for part in parts] for parts in (body, classifier))
    with torch.enable_grad():
        sums = task_gradient(slow, fast, TaskStart(start, ways, many, tuple(at), table), inner, Task(*tasks))
    weights = [gradient.sum(0) for gradient in sums.weights]
    rates = [[gradient.sum(0) for gradient in row] for row in sums.rates]
    return Totals(sums.loss, weights, rates, [mean_over_tasks(sums.seen)])
