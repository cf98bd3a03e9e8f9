"""Start: everything an inner loop starts from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metarep.encoders import Encoder
from metarep.encoders.normalisation import Normalisation
from metarep.learners.inner_loop.head import Head
from metarep.learners.inner_loop.rates import Rate, Rates


@dataclass(frozen=True)
class Start:
    """Everything an inner loop starts from.

    Args:
        encoder: its body is what the steps adapt.
        head: the classifier on top.
        rates: inner learning rates.
        normalisation: whose statistics norm layers use.
        moved: which of the tensors that have rates the steps change; None for all.
    """

    encoder: Encoder
    head: Head
    rates: Rates
    normalisation: Normalisation
    moved: tuple[int, ...] | None = None

    @property
    def body(self) -> list[Tensor]:
        """The body's parameters, in the order in which weights are passed around."""
        return list(self.encoder.body.parameters())

    def for_tasks(self, ways: int, steps: int) -> "TaskStart":
        """The tensors that tasks of so many classes start from, and the rates of so many steps.

        Raises:
            MetarepError: the head has rows for another number of classes.
        """
        classifier: tuple[Tensor, ...] = ()
        if self.head.kind != "prototype":
            weight, bias = self.head.start(ways, None, torch.zeros(1, 1, dtype=torch.long))
            classifier = weight[0], bias[0]
        return TaskStart(self, ways, self.body, classifier, self.table(steps))

    def table(self, steps: int) -> list[Sequence[Rate]]:
        """For each step the rate of each tensor that it changes."""
        rows = self.rates.table(steps)
        return rows if self.moved is None else [[row[place] for place in self.moved] for row in rows]


@dataclass(frozen=True)
class TaskStart:
    """What the tasks of one batch start from.

    Args:
        start: where the tensors come from; its head, normalisation and encoder hold for the tasks too.
        ways: classes of each task.
        body: weights of the body.
        classifier: weight and bias of the head; empty where they depend on the task.
        table: for each step the rate of each tensor that it changes.
    """

    start: Start
    ways: int
    body: list[Tensor]
    classifier: tuple[Tensor, ...]
    table: Sequence[Sequence[Rate]]

    def detached(self) -> "TaskStart":
        """The same values without a graph."""
        return replace(
            self,
            body=[weight.detach() for weight in self.body],
            classifier=tuple(part.detach() for part in self.classifier),
            table=[[rate.detach() if isinstance(rate, Tensor) else rate for rate in row] for row in self.table],
        )
