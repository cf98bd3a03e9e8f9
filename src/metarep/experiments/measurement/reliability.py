"""Reliability: open set, calibration, worst class and worst task of a measurement, and the counts they are made of."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from metarep.experiments.measurement.calibration import (
    BINS,
    LEVELS,
    calibration_error,
    confidence_bins,
    conformal_threshold,
    levels,
)
from metarep.experiments.measurement.open_set import auroc, false_alarms
from metarep.machine.ranks import gather_all, sum_over_ranks

FIGURES = (
    *("auroc", "false_alarms", "calibration_error", "set_size", "coverage"),
    *("worst_class", "worst_task", "low_task", "task_seconds"),
)
COUNTS = ("per_task", "bins", "true", "every")
LOW = 0.05  # the share of tasks below the low accuracy


@dataclass(frozen=True)
class Tally:
    """The counts of some tasks, from which those of all tasks follow without a rounding error.

    Args:
        per_task: for each task in percent: the accuracy of its worst class, AUROC, and false alarms. The last two are
            NaN without unknown queries.
        bins: see :func:`metarep.experiments.measurement.calibration.confidence_bins`.
        true, every: of the tasks at even and at odd places, the number of queries whose true class has each level, and
            of all classes; see :func:`metarep.experiments.measurement.calibration.levels`.
        seconds: time to adapt to the tasks and compute the logits of their queries.
    """

    per_task: Float[Tensor, "task 3"]
    bins: Int[Tensor, "bin 3"]
    true: Int[Tensor, "2 level"]
    every: Int[Tensor, "2 level"]
    seconds: float

    @staticmethod
    def of(
        logits: Float[Tensor, "task query ways"],
        query_y: Int[Tensor, "task query"],
        first: int,
        seconds: float,
        known: Float[Tensor, "task query"] | None = None,
        unknown: Float[Tensor, "task other"] | None = None,
    ) -> "Tally":
        """The counts of tasks of one shape.

        Args:
            logits: of the queries.
            query_y: the right class of each query.
            first: the place of the first task among all tasks.
            seconds: time that these logits took.
            known, unknown: scores of the queries of known and of unknown classes; None without unknown queries.

        >>> logits = torch.tensor([[[2.0, 0.0], [2.0, 0.0]]])
        >>> Tally.of(logits, torch.tensor([[0, 1]]), 0, 0.0).per_task
        tensor([[0., nan, nan]])
        """
        n, _, ways = logits.shape
        highest, answer = logits.softmax(-1).max(-1)
        right = (answer == query_y).to(logits.dtype)
        member = functional.one_hot(query_y, ways).to(logits.dtype)
        counts = member.sum(1)
        by_class = (right.unsqueeze(1) @ member).squeeze(1) / counts.clamp_min(1)
        columns = [by_class.masked_fill(counts == 0, 1).amin(-1)]
        if known is None or unknown is None:
            columns += [columns[0].new_full((n,), float("nan"))] * 2
        else:
            columns += [auroc(known, unknown), false_alarms(known, unknown)]
        level = levels(logits)
        own = level.gather(-1, query_y.unsqueeze(-1)).squeeze(-1)
        halves = [slice(half, None, 2) if first % 2 == 0 else slice(1 - half, None, 2) for half in (0, 1)]
        return Tally(
            100 * torch.stack(columns, dim=1),
            confidence_bins(highest.flatten(), right.flatten()),
            torch.stack([own[half].flatten().bincount(minlength=LEVELS) for half in halves]),
            torch.stack([level[half].flatten().bincount(minlength=LEVELS) for half in halves]),
            seconds,
        )

    @staticmethod
    def join(parts: "Sequence[Tally]") -> "Tally":
        """The counts of all tasks from those of parts, in the order of the tasks; of no tasks from no parts."""
        if not parts:
            zeros = torch.zeros(2, LEVELS, dtype=torch.long)
            return Tally(torch.zeros(0, 3), zeros.new_zeros(BINS, 3), zeros, zeros, 0.0)
        return Tally(
            torch.cat([part.per_task for part in parts]),
            sum_of([part.bins for part in parts]),
            sum_of([part.true for part in parts]),
            sum_of([part.every for part in parts]),
            sum(part.seconds for part in parts),
        )

    def to(self, device: torch.device | str) -> "Tally":
        """The same counts on a device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in COUNTS})

    def as_dict(self) -> dict[str, Any]:
        """The counts as JSON holds them."""
        return {name: getattr(self, name).tolist() for name in COUNTS} | {"seconds": self.seconds}

    @staticmethod
    def of_dict(content: dict[str, Any]) -> "Tally":
        """The counts from what :meth:`as_dict` has given.

        Raises:
            ValueError, KeyError, TypeError, RuntimeError: they were changed.
        """
        per_task = torch.tensor(content["per_task"])
        counts = {name: torch.tensor(content[name]) for name in COUNTS if name != "per_task"}
        shapes = [tuple(each.shape) for each in counts.values()]
        if shapes != [(BINS, 3), (2, LEVELS), (2, LEVELS)] or per_task.shape[1] != 3 or not content["seconds"] >= 0:
            raise ValueError("the counts of a measurement have other shapes")
        if any(each.dtype != torch.long or int(each.min()) < 0 for each in counts.values()):
            raise ValueError("the counts are not whole numbers")
        return Tally(per_task, **counts, seconds=content["seconds"])

    def over_ranks(self) -> "Tally":
        """The counts of the tasks of all ranks, on every rank."""
        per_task, seconds = gather_all(self.per_task), self.bins.new_tensor([self.seconds], dtype=torch.float64)
        added = {name: sum_over_ranks(getattr(self, name)) for name in COUNTS if name != "per_task"}
        return Tally(per_task, **added, seconds=float(sum_over_ranks(seconds)))


@dataclass(frozen=True)
class Reliability:
    """What an accuracy does not say. Shares are in percent, and means are over tasks.

    Args:
        auroc: how often a query of a known class scores higher than one of an unknown class; 50 is chance. NaN without
            unknown classes.
        false_alarms: share of queries of unknown classes that are taken for known where 95 % of the known ones are.
        calibration_error: expected calibration error of the softmax probability, over 15 bins.
        set_size: mean number of labels in a conformal label set that is to hold the right label in 90 % of answers.
        coverage: share of these sets that hold the right label.
        worst_class: mean over tasks of the accuracy of the worst class in the task.
        worst_task: accuracy of the worst task.
        low_task: accuracy below which 5 % of the tasks are.
        task_seconds: seconds to adapt to a task and to answer its queries, in the batches of the measurement.
        without_unknown: why there are no open-set figures; empty where there are.
        tally: the counts of these tasks.

    >>> logits = 9 * torch.eye(2).expand(4, 2, 2)  # four tasks of two queries, all right
    >>> tally = Tally.of(logits, torch.tensor([[0, 1]]).expand(4, 2), first=0, seconds=2.0)
    >>> measured = Reliability.of(tally, torch.full((4,), 100.0), without_unknown="no further class")
    >>> measured.worst_class, measured.coverage, measured.task_seconds
    (100.0, 100.0, 0.5)
    """

    auroc: float
    false_alarms: float
    calibration_error: float
    set_size: float
    coverage: float
    worst_class: float
    worst_task: float
    low_task: float
    task_seconds: float
    without_unknown: str
    tally: Tally = field(repr=False)

    @staticmethod
    def of(tally: Tally, accuracies: Float[Tensor, " task"], without_unknown: str = "") -> "Reliability":
        """The figures of a measurement.

        Args:
            tally: the counts of all tasks.
            accuracies: the accuracy of each task in percent.
            without_unknown: why there are no open-set figures.
        """
        worst_class, area, alarms = tally.per_task.mean(0).tolist()
        thresholds = [conformal_threshold(half) for half in tally.true.flip(0)]  # each half is judged by the other
        inside, held = (
            sum(int(half[low:].sum()) for half, low in zip(counts, thresholds, strict=True))
            for counts in (tally.every, tally.true)
        )
        answers = int(tally.true.sum())
        return Reliability(
            auroc=area,
            false_alarms=alarms,
            calibration_error=100 * calibration_error(tally.bins),
            set_size=inside / answers,
            coverage=100 * held / answers,
            worst_class=worst_class,
            worst_task=accuracies.min().item(),
            low_task=accuracies.quantile(LOW).item(),
            task_seconds=tally.seconds / len(accuracies),
            without_unknown=without_unknown,
            tally=tally,
        )

    def __str__(self) -> str:
        return told(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """The figures by name, without ``tally``."""
        return {name: value for name, value in self.__dict__.items() if name != "tally"}


def told(figures: dict[str, Any]) -> str:
    """The figures of :meth:`Reliability.as_dict` as one line."""
    open_set = f"open set {figures['auroc']:.1f} % AUROC, {figures['false_alarms']:.1f} % false alarms at 95 % recall"
    if figures["without_unknown"]:
        open_set = f"no open set: {figures['without_unknown']}"
    return (
        f"{open_set}; calibration error "
        f"{figures['calibration_error']:.1f} %, label sets of {figures['set_size']:.2f} labels hold "
        f"{figures['coverage']:.1f} %; worst class {figures['worst_class']:.1f} %, worst task "
        f"{figures['worst_task']:.1f} %, 5 % of tasks below {figures['low_task']:.1f} %; "
        f"{1000 * figures['task_seconds']:.2f} ms a task"
    )


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    """The sum of tensors of one shape."""
    return torch.stack(tuple(tensors)).sum(0)
