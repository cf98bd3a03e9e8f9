"""One task's inner loop: gradient steps on its support set, from given weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from metarep.errors import MetarepError
from metarep.learners.inner_loop.rates import Rate
from metarep.learners.inner_loop.slope import Slope, Weights
from metarep.learners.inner_loop.support import support_slope
from metarep.learners.inner_loop.task_network import TaskNetwork


class Task(NamedTuple):
    """Preprocessed images and labels of one task."""

    support: Float[Tensor, "support c h w"]
    support_y: Int[Tensor, " support"]
    query: Float[Tensor, "query c h w"]
    query_y: Int[Tensor, " query"]

    def singles(self) -> "list[Task]":
        """One by one, where each part has the task axis first."""
        return [Task(*parts) for parts in zip(*self, strict=True)]


@dataclass(frozen=True)
class InnerLoop:
    """What the inner loop does.

    Args:
        steps: gradient steps on the support.
        adapted: which tensors (of body, head weight, head bias, in that order) they change.
        order: 2 differentiates through the steps; 1 takes the query gradient at the adapted weights for that at the
            start, and builds no second graph.
        weights: of the query loss after each step, summing to 1 (MAML++'s multi-step loss); None for the last alone.
    """

    steps: int
    adapted: tuple[int, ...]
    order: int = 2
    weights: tuple[float, ...] | None = None

    def weight_after(self, step: int) -> float:
        """Of the query loss once ``step`` steps are taken."""
        if self.weights is None or self.steps == 0:
            return float(step == self.steps)
        return self.weights[step - 1] if step else 0.0


def take_step(
    network: TaskNetwork,
    inner: InnerLoop,
    weights: Weights,
    rates: Sequence[Rate],
    support: Float[Tensor, "*task support c h w"],
    labels: Int[Tensor, "*task support"],
    step: int,
    *,
    record: bool = False,
) -> tuple[list[Tensor], Slope]:
    """One step of gradient descent, and the slope it went down, which is all it takes to differentiate through it.

    Of one task; or of many, with the task axis first, where the network takes them.

    Args:
        weights: where it starts; detached here.
        network: runs the support; differentiable twice for the second order.
        inner: which tensors change, and the order of the derivatives.
        rates: one for each adapted tensor, without graph.
        support, labels: the images that the step sees.
        step: its number, counted from 0, for the error message.
        record: keep the support's batch statistics in the slope.

    Raises:
        MetarepError: the support loss is no longer a number.
    """
    weights = [weight.detach() for weight in weights]
    slope = support_slope(network, weights, inner.adapted, support, labels, keep=inner.order == 2, record=record)
    if network.checked:
        refuse_blow_up(slope.loss, step)
    for i, rate, part in zip(inner.adapted, rates, slope.gradient, strict=True):
        weights[i] = weights[i] - rate * part
    return weights, slope


def refuse_blow_up(loss: Float[Tensor, ""], step: int) -> None:
    """Raise if an inner loss is not finite.

    Raises:
        MetarepError: it names the step.
    """
    if not math.isfinite(value := loss.item()):
        raise MetarepError(
            f"the inner loss is {value} before inner step {step + 1}: the inner learning rate is too large, or the "
            "images are not numbers; try a tenth of the rate"
        )
