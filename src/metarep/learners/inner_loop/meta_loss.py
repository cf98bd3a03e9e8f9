"""The mean query loss of a batch of tasks, by the fastest exact path for the device."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from metarep.encoders.normalisation import Statistics, update_running
from metarep.errors import MetarepError, one_of
from metarep.learners.inner_loop.network import Network
from metarep.learners.inner_loop.plain import task_loss
from metarep.learners.inner_loop.start import Start, TaskStart
from metarep.learners.inner_loop.task import InnerLoop, Task
from metarep.learners.inner_loop.totals import Totals, mean_over_tasks, one_by_one
from metarep.machine import faster

Path = Literal["auto", "exact", "stacked", "mapped", "plain"]
OfTasks = Callable[[TaskStart, InnerLoop, Task], Totals]


def meta_loss(start: Start, inner: InnerLoop, tasks: Task, ways: int, path: Path = "auto") -> Float[Tensor, ""]:
    """Returns the mean query loss over tasks, differentiable in the body, the head and the rates.

    There are four paths. They give the same loss and gradient but for rounding:

    - ``exact`` computes the loss and the gradient of each task together, with the tasks on several threads (for CPUs).
    - ``stacked`` does the same for all tasks at once and replays it as one CUDA graph (for Conv4 on NVIDIA GPUs, by
      :mod:`metarep.fast`).
    - ``mapped`` runs all tasks at once by ``torch.func.vmap`` (for other networks on accelerators).
    - ``plain`` is the textbook loop, one task after another (a reference for tests).

    Args:
        start: encoder, head and rates. In training the running statistics of its norm layers are updated by the batch
            statistics of the support sets.
        inner: the settings of the inner loop.
        tasks: preprocessed images and labels, with the task axis first.
        ways: number of classes of each task.
        path: the name of a path; ``auto`` chooses one by the device and the network.

    Raises:
        MetarepError: a support loss is NaN or infinite (checked on the CPU only); the head has rows for another number
            of classes; the body keeps state or cannot be differentiated twice; or ``stacked`` is not available.
    """
    one_of("path", path, get_args(Path))
    many = None
    if path in ("auto", "stacked"):
        many = faster.many_tasks(start, tasks.support, always=path == "stacked")
    if path == "stacked" and many is None:
        raise MetarepError("path 'stacked' needs the folder metarep/fast, which is missing here; take path auto")
    if path == "auto":
        elsewhere = "exact" if tasks.support.device.type == "cpu" else "mapped"
        path = elsewhere if many is None else "stacked"
    by_formula = one_by_one if path == "exact" else None if many is None else many.totals
    at = start.for_tasks(ways, inner.steps)
    # Fused attention kernels support neither second derivatives nor vmap. This setting is global for all threads.
    plainly = inner.order == 2 or by_formula is None
    with sdpa_kernel(SDPBackend.MATH) if plainly else nullcontext():
        if by_formula is not None:
            return _with_gradient(at, inner, tasks, by_formula)
        return _by_autograd(at, inner, tasks, mapped=path == "mapped")


def _by_autograd(start: TaskStart, inner: InnerLoop, tasks: Task, *, mapped: bool) -> Float[Tensor, ""]:
    """Returns the loss with a graph of the whole inner loop."""
    network = Network(start.start, differentiable=True, mapped=True)
    start = replace(start, body=[weight.contiguous() for weight in start.body])  # vmap supports no other memory format

    def one(*parts: Tensor) -> tuple[Tensor, Statistics]:
        return task_loss(network, start, inner, Task(*parts))

    if mapped:
        losses, statistics = torch.func.vmap(one, randomness="different")(*tasks)
        # Only the mean over tasks is needed. A slice for each task and layer would each cost a kernel launch.
        seen = [mean_over_tasks(statistics)]
    else:
        each, seen = zip(*(one(*task) for task in tasks.singles()), strict=True)
        losses = torch.stack(each)
    _update_running(start.start, seen, len(tasks.support))
    return losses.mean()


def _with_gradient(start: TaskStart, inner: InnerLoop, tasks: Task, of_tasks: OfTasks) -> Float[Tensor, ""]:
    """Returns the loss with a gradient that was computed together with it."""
    loss, weights, rates, seen = of_tasks(start.detached(), inner, tasks)
    _update_running(start.start, seen, len(tasks.support))
    inputs = [*start.body, *start.classifier]
    gradients = weights[: len(inputs)]  # a head that is made of prototypes is not an input
    for row, own in zip(start.table, rates, strict=True):
        for rate, gradient in zip(row, own, strict=True):
            if isinstance(rate, Tensor):
                inputs.append(rate)
                gradients.append(gradient.sum() if rate.ndim == 0 else gradient)
    share = 1 / len(tasks.support)
    return _WithGradient.apply(loss * share, torch._foreach_mul(gradients, share), *inputs)


class _WithGradient(torch.autograd.Function):
    """A value whose gradient was computed before."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: Sequence[Tensor], *inputs: Tensor) -> Tensor:  # noqa: ANN401, ARG004
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        return None, None, *torch._foreach_mul(ctx.gradients, above)


def _update_running(start: Start, seen: Sequence[Statistics], tasks: int) -> None:
    if start.encoder.training and all(seen):
        update_running(start.encoder.body, seen, tasks)
