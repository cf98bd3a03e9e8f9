"""The inner loop of one task: gradient steps on its support set."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from metarep.errors import MetarepError
from metarep.learners.inner_loop.start import TaskStart
from metarep.learners.inner_loop.support import differentiate_support
from metarep.learners.inner_loop.support_gradient import SupportGradient, Weights
from metarep.learners.inner_loop.task_network import TaskNetwork


class Task(NamedTuple):
    """Preprocessed images and labels of one task; with a task axis first in every part, of many tasks."""

    support: Float[Tensor, "support c h w"]
    support_y: Int[Tensor, " support"]
    query: Float[Tensor, "query c h w"]
    query_y: Int[Tensor, " query"]

    def singles(self) -> "list[Task]":
        """Returns the tasks one by one, where each part has the task axis first."""
        return [Task(*parts) for parts in zip(*self, strict=True)]


@dataclass(frozen=True)
class InnerLoop:
    """The settings of an inner loop.

    Args:
        steps: number of gradient steps on the support set.
        adapted: positions of the tensors that the steps change, among the body's parameters, the head's weight and the
            head's bias.
        order: 2 differentiates through the steps. 1 uses the query gradient at the adapted weights as if it were the
            gradient at the start, and builds no second graph.
        weights: the weight of the query loss after each step, with sum 1 (the multi-step loss of MAML++). None for the
            loss after the last step only.
    """

    steps: int
    adapted: tuple[int, ...]
    order: int = 2
    weights: tuple[float, ...] | None = None

    def weight_after(self, step: int) -> float:
        """Returns the weight of the query loss after ``step`` steps."""
        if self.weights is None or self.steps == 0:
            return float(step == self.steps)
        return self.weights[step - 1] if step else 0.0


@dataclass(frozen=True)
class SupportDescent:
    """Gradient descent on the support loss, one step at a time, for one task or for many at once.

    Args:
        network: runs the support set; it must be differentiable twice for the second order.
        inner: which tensors change, and the order of the derivatives.
        start: the rates of each step, without a graph.
    """

    network: TaskNetwork
    inner: InnerLoop
    start: TaskStart

    def take_step(
        self,
        step: int,
        weights: Weights,
        support: Float[Tensor, "*task support c h w"],
        labels: Int[Tensor, "*task support"],
        *,
        record: bool = False,
    ) -> tuple[list[Tensor], SupportGradient]:
        """Takes one step and returns the new weights and the support gradient at the old ones.

        The support gradient is all that differentiation through the step needs.

        Args:
            step: the number of the step, counted from 0.
            weights: the weights before the step; they are detached and not changed.
            support, labels: the images of this step and their classes.
            record: keep the batch statistics of the support set in the support gradient.

        Raises:
            MetarepError: the support loss is NaN or infinite. The message names the step.
        """
        inner, weights = self.inner, [weight.detach() for weight in weights]
        keep = inner.order == 2
        at = differentiate_support(self.network, weights, inner.adapted, support, labels, keep=keep, record=record)
        if self.network.checked:
            require_finite_loss(at.loss, step)
        for i, rate, part in zip(inner.adapted, self.start.table[step], at.gradient, strict=True):
            weights[i] = weights[i] - rate * part
        return weights, at


def require_finite_loss(loss: Float[Tensor, ""], step: int) -> None:
    """Raises if the support loss before step ``step`` (counted from 0) is NaN or infinite.

    Raises:
        MetarepError: the loss is NaN or infinite. The message names the step.
    """
    if not math.isfinite(value := loss.item()):
        raise MetarepError(
            f"the inner loss is {value} before inner step {step + 1}: the inner learning rate is too large, or an "
            "image has NaN or infinite values; divide the rate by 10, or check the images"
        )
