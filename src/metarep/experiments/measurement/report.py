"""Report: an accuracy with everything that makes it comparable."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from metarep.errors import counted
from metarep.experiments.measurement.reliability import Reliability

Balance = Literal["balanced", "dirichlet", "unbalanced"]


def span(values: Iterable[int]) -> str:
    """The smallest and the largest of some numbers of ways or shots, as text.

    >>> span([5, 5]), span(range(1, 6))
    ('5', '1-5')
    """
    numbers = {*values}
    return str(min(numbers)) if len(numbers) == 1 else f"{min(numbers)}-{max(numbers)}"


@dataclass(frozen=True)
class Report:
    """An accuracy with everything that makes it comparable. Accuracies are in percent.

    Args:
        accuracy: mean over the tasks.
        ci95: half the width of the 95 % interval of the mean, ``1.96 * s / sqrt(tasks)``. NaN for a single task.
        tasks: number of tasks.
        ways, shots: a number or a range as text (``5``, ``5-20``).
        queries: query images of each class.
        protocol: ``inductive``, where no answer depends on another query; or ``transductive``.
        normalisation: the batch statistics that the norm layers used.
        learner: the learner that was adapted to each task.
        split: the data that the tasks were drawn from.
        digest: identifies the set of tasks.
        seconds: duration of the measurement in seconds.
        per_task: accuracy on each task.
        reliability: open set, calibration, worst class and worst task; None where only the accuracy was measured.
        balance: ``balanced``, equally many queries of each class; ``dirichlet``, shares drawn at random; or
            ``unbalanced``, given tasks whose classes have different numbers of queries.
        within: whether the classes of each task share a superclass.

    >>> import torch
    >>> how = ("inductive", "running", "prototypes", "glyphs/test", "0123456789ab")
    >>> report = Report(81.25, 2.45, 2, "5", "1", 15, *how, seconds=1.0, per_task=torch.tensor([80.0, 82.5]))
    >>> str(report)[:46], report.as_dict()["tasks"]
    ('5-way 1-shot: 81.25 ± 2.45 % (2 tasks of 15 qu', 2)
    """

    accuracy: float
    ci95: float
    tasks: int
    ways: str
    shots: str
    queries: int
    protocol: str
    normalisation: str
    learner: str
    split: str
    digest: str
    seconds: float
    per_task: Float[Tensor, " task"] = field(repr=False)
    reliability: Reliability | None = None
    balance: Balance = "balanced"
    within: bool = False

    @property
    def answers(self) -> str:
        """The protocol, with the balance of the queries if it is not the usual one, or if the learner depends on it.

        Tasks within superclasses are said too.

        >>> import torch
        >>> Report(81.25, 2.45, 2, "5", "1", 15, "transductive", *"abcd", 1.0, torch.zeros(2)).answers
        'transductive, balanced'
        """
        usual = self.balance == "balanced" and self.protocol in ("inductive", self.normalisation)
        parts = [self.protocol, *([] if usual else [self.balance]), *(["within superclasses"] if self.within else [])]
        return ", ".join(parts)

    def __str__(self) -> str:
        return (
            f"{self.ways}-way {self.shots}-shot: {self.accuracy:.2f} ± {self.ci95:.2f} % "
            f"({self.tasks:,} tasks of {counted(self.queries, 'query', 'queries')} a class, {self.answers}, "
            f"{self.normalisation} statistics, {self.learner}, {self.split} {self.digest}, {self.seconds:.1f} s)"
        )

    def as_dict(self) -> dict[str, str | int | float]:
        """The fields by name, without ``per_task``; with those of ``reliability`` where it was measured."""
        own = {name: value for name, value in self.__dict__.items() if name not in ("per_task", "reliability")}
        return own | (self.reliability.as_dict() if self.reliability else {})
