"""The query loss of a batch of tasks, by the fastest exact path for the device."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

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
from metarep.inner_loop.task import InnerLoop, Task
from metarep.normalisation import Normalisation, Statistics, update_running
from metarep.workers import run_tasks

Path = Literal["auto", "exact", "mapped", "plain"]


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
    their own (processors); ``mapped`` runs all tasks as one by vmap (accelerators, where many small launches would
    cost more than grouped convolutions do); ``plain`` is the loop that a textbook has, one task after another.

    Args:
        start: encoder, head and rates; its norm layers' running statistics move to what the support sets saw.
        inner: what the inner loop does.
        tasks: preprocessed images and labels, the task axis first.
        ways: classes a task.
        path: ``auto`` chooses by the device.

    Raises:
        MetarepError: a support loss is no longer a number (``exact`` alone looks), tasks of other ways than the head
            has rows, or a buffer that cannot be adapted.
    """
    one_of("path", path, ("auto", "exact", "mapped", "plain"))
    if path == "auto":
        path = "exact" if tasks.support.device.type == "cpu" else "mapped"
    table = start.rates.table(inner.steps)
    if path == "exact":
        return _exact(start, inner, _singles(tasks), ways, table)
    network = Network(start.encoder, start.normalisation, differentiable=True)

    def one(*parts: Tensor) -> tuple[Tensor, Statistics]:
        return task_loss(network, inner, start.body, start.head, ways, table, Task(*parts))

    if path == "mapped":
        losses, stacked = torch.func.vmap(one, randomness="different")(*tasks)
        # The mean over tasks is all that anybody asks for; a slice for each task and layer would be a launch for each.
        seen = [[(mean.detach().mean(0), variance.detach().mean(0)) for mean, variance in stacked]]
    else:
        each, seen = zip(*(one(*task) for task in _singles(tasks)), strict=True)
        losses = torch.stack(each)
    _remember(start, seen)
    return losses.mean()


def _singles(tasks: Task) -> list[Task]:
    return [Task(*parts) for parts in zip(*tasks, strict=True)]


def _exact(
    start: Start, inner: InnerLoop, tasks: list[Task], ways: int, table: Sequence[Sequence[Rate]]
) -> Float[Tensor, ""]:
    body = start.body
    workers = useful_workers(start.encoder.body, tasks[0].support.device)
    networks = [
        tuple(Network(start.encoder, start.normalisation, differentiable=twice) for twice in (inner.order == 2, False))
        for _ in range(min(workers, len(tasks)))
    ]
    fixed = None
    if start.head.kind != "prototype":
        weight, bias = start.head.start(ways, None, torch.zeros(1, 1, dtype=torch.long))
        fixed = weight[0], bias[0]
    learned: list[list[Tensor]] = [[rate for rate in row if isinstance(rate, Tensor)] for row in table]
    plain = [weight.detach() for weight in body]
    at = tuple(part.detach() for part in fixed) if fixed else None
    rates = [[rate.detach() if isinstance(rate, Tensor) else rate for rate in row] for row in table]

    def work(worker: int, task: Task) -> TaskGradient:
        slow, fast = networks[worker]
        with torch.enable_grad():  # whatever the caller's mode is: threads have their own
            return task_gradient(slow, fast, inner, plain, start.head, at, ways, rates, task)

    found = run_tasks(work, tasks, workers)
    _remember(start, [one.seen for one in found])
    share = 1 / len(found)
    inputs = [*body, *(fixed or ())]
    gradients = [_total([one.weights[i] for one in found]) * share for i in range(len(inputs))]
    for step, row in enumerate(learned):
        for i, rate in enumerate(row):
            inputs.append(rate)
            summed = _total([one.rates[step][i] for one in found]) * share
            gradients.append(summed.sum() if rate.ndim == 0 else summed)
    loss = _total([one.loss for one in found]) * share
    return _WithGradient.apply(loss, gradients, *inputs)


class _WithGradient(torch.autograd.Function):
    """A value whose gradient is already known."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor], *inputs: Tensor) -> Tensor:  # noqa: ANN401, ARG004
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        return None, None, *(gradient * above for gradient in ctx.gradients)


def _total(parts: Sequence[Tensor]) -> Tensor:
    """Their sum, in their order: the same to the bit whatever thread was first."""
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total


def _remember(start: Start, seen: Sequence[Statistics]) -> None:
    if start.encoder.training and all(seen):
        update_running(start.encoder.body, seen)
