"""The query loss of a batch of tasks, by the fastest exact path for the device."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from metarep.errors import one_of
from metarep.inner_loop.network import Network
from metarep.inner_loop.plain import task_loss
from metarep.inner_loop.rates import Rate
from metarep.inner_loop.stacked import stacked
from metarep.inner_loop.start import Start
from metarep.inner_loop.task import InnerLoop, Task
from metarep.inner_loop.totals import Totals, all_at_once, mean_over_tasks, one_by_one
from metarep.normalisation import Statistics, update_running

Path = Literal["auto", "exact", "stacked", "mapped", "plain"]


def meta_loss(start: Start, inner: InnerLoop, tasks: Task, ways: int, path: Path = "auto") -> Float[Tensor, ""]:
    """The mean query loss over tasks, with the exact gradient in the body, the head and the rates.

    Paths, equal but for rounding: ``exact`` computes loss and gradient of each task in one go, tasks on threads of
    their own (processors); ``stacked`` the same for all tasks at once, recorded and replayed as one launch (Conv4 on
    NVIDIA GPUs); ``mapped`` runs all tasks as one by vmap (other networks and accelerators); ``plain`` is the loop that
    a textbook has, one task after another.

    Args:
        start: encoder, head and rates; its norm layers' running statistics move to what the support sets saw.
        inner: what the inner loop does.
        tasks: preprocessed images and labels, the task axis first.
        ways: classes a task.
        path: ``auto`` chooses by the device and the network.

    Raises:
        MetarepError: a support loss is no longer a number (``exact`` alone looks), tasks of other ways than the head
            has rows, or a body that keeps state or cannot be differentiated twice.
    """
    one_of("path", path, get_args(Path))
    if path == "auto":
        elsewhere = "exact" if tasks.support.device.type == "cpu" else "mapped"
        path = "stacked" if stacked(start.encoder.body, tasks.support) else elsewhere
    table = start.table(inner.steps)
    # Attention's fused kernels know no second derivative, and no vmap. The choice is global, and threads share it.
    plainly = inner.order == 2 or path not in ("exact", "stacked")
    with sdpa_kernel(SDPBackend.MATH) if plainly else nullcontext():
        return _loss(start, inner, tasks, ways, table, path)


def _loss(
    start: Start, inner: InnerLoop, tasks: Task, ways: int, table: Sequence[Sequence[Rate]], path: Path
) -> Float[Tensor, ""]:
    if path in ("exact", "stacked"):
        return _known(start, inner, tasks, ways, table, all_at_once if path == "stacked" else one_by_one)
    network = Network(start.encoder, start.normalisation, differentiable=True, mapped=True)
    body = [weight.contiguous() for weight in start.body]  # vmap knows no other format

    def one(*parts: Tensor) -> tuple[Tensor, Statistics]:
        return task_loss(network, inner, body, start.head, ways, table, Task(*parts))

    if path == "mapped":
        losses, statistics = torch.func.vmap(one, randomness="different")(*tasks)
        # The mean over tasks is all that anybody asks for; a slice for each task and layer would be a launch for each.
        seen = [mean_over_tasks(statistics)]
    else:
        each, seen = zip(*(one(*task) for task in tasks.singles()), strict=True)
        losses = torch.stack(each)
    _remember(start, seen)
    return losses.mean()


def _known(
    start: Start,
    inner: InnerLoop,
    tasks: Task,
    ways: int,
    table: Sequence[Sequence[Rate]],
    of_tasks: Callable[..., Totals],
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


class _WithGradient(torch.autograd.Function):
    """A value whose gradient is already known."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: Sequence[Tensor], *inputs: Tensor) -> Tensor:  # noqa: ANN401, ARG004
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        return None, None, *torch._foreach_mul(ctx.gradients, above)


def _remember(start: Start, seen: Sequence[Statistics]) -> None:
    if start.encoder.training and all(seen):
        update_running(start.encoder.body, seen)
