"""Start: the encoder, head and rates that an inner loop starts from."""

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
    """The modules and settings that an inner loop starts from.

    Args:
        encoder: the encoder whose body the steps adapt.
        head: the classifier on top.
        rates: inner learning rates.
        normalisation: which statistics the norm layers use.
        moved: positions, among the tensors that have rates, of those that the steps change; None for all.
    """

    encoder: Encoder
    head: Head
    rates: Rates
    normalisation: Normalisation
    moved: tuple[int, ...] | None = None

    @property
    def body(self) -> list[Tensor]:
        """The body's parameters, in the order of :data:`Weights`."""
        return list(self.encoder.body.parameters())

    def for_tasks(self, ways: int, steps: int) -> "TaskStart":
        """Returns the tensors that a batch of tasks starts from.

        Args:
            ways: number of classes of each task.
            steps: number of inner steps, each with its rates.

        Raises:
            MetarepError: the head has rows for another number of classes.
        """
        classifier: tuple[Tensor, ...] = ()
        if self.head.kind != "prototype":
            weight, bias = self.head.start(ways, None, torch.zeros(1, 1, dtype=torch.long))
            classifier = weight[0], bias[0]
        return TaskStart(self, ways, self.body, classifier, self.table(steps))

    def table(self, steps: int) -> list[Sequence[Rate]]:
        """Returns for each of ``steps`` steps the rate of each tensor that it changes."""
        rows = self.rates.table(steps)
        return rows if self.moved is None else [[row[position] for position in self.moved] for row in rows]


@dataclass(frozen=True)
class TaskStart:
    """The tensors that the tasks of one batch start from.

    Args:
        start: the source of the tensors; its encoder, head and normalisation hold for the tasks too.
        ways: number of classes of each task.
        body: weights of the body.
        classifier: weight and bias of the head; empty if they depend on the task.
        table: for each step the rate of each tensor that it changes.
    """

    start: Start
    ways: int
    body: list[Tensor]
    classifier: tuple[Tensor, ...]
    table: Sequence[Sequence[Rate]]

    def detached(self) -> "TaskStart":
        """Returns the same values without a graph."""
        return replace(
            self,
            body=[weight.detach() for weight in self.body],
            classifier=tuple(part.detach() for part in self.classifier),
            table=[[rate.detach() if isinstance(rate, Tensor) else rate for rate in row] for row in self.table],
        )
