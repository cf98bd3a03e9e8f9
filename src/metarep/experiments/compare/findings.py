"""Findings: the figures of a comparison, made of its measurements."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, stdev
from typing import Any, NamedTuple

import torch

from metarep.experiments.compare.entrants import Entrant
from metarep.experiments.compare.measurements import Measurement
from metarep.experiments.compare.statistics import Difference, Ranking, holm, paired, ranking, ranks_of
from metarep.experiments.measurement.interval import interval

SIGNIFICANT = 0.05
# Figures of a measurement besides accuracy, and their headings. Shares are in percent.
MORE = {
    "auroc": "open set AUROC",
    "false_alarms": "false alarms at 95 % recall",
    "calibration_error": "calibration error",
    "set_size": "labels in a 90 % set",
    "coverage": "coverage of the set",
    "worst_class": "worst class of a task",
    "low_task": "5 % of tasks below",
    "worst_task": "worst task",
    "task_seconds": "ms a task",
}


class Place(NamedTuple):
    """One set of test tasks: the data set, and ways and shots as text."""

    data: str
    ways: str
    shots: str

    @property
    def shape(self) -> str:
        """Ways and shots as words."""
        return f"{self.ways}-way {self.shots}-shot"


@dataclass(frozen=True)
class Cell:
    """One entrant on one set of tasks, as the mean over its seeds; accuracies are in percent.

    Args:
        accuracy: mean over seeds and tasks.
        ci95: half the width of the 95 % interval over tasks, of the mean over seeds.
        seed_sd: standard deviation over seeds; None for one seed.
        runs: the measurement of each seed.
    """

    accuracy: float
    ci95: float
    seed_sd: float | None
    runs: tuple[Measurement, ...]

    def figure(self, name: str) -> float | None:
        """The mean over seeds of a figure of the rows; None if some seed does not have it."""
        values = [run.row.get(name) for run in self.runs]
        known = [float(value) for value in values if isinstance(value, int | float) and not math.isnan(value)]
        return mean(known) if len(known) == len(values) else None


class Pair(NamedTuple):
    """Two entrants on one set of tasks; ``corrected`` is the probability after Holm's correction for all pairs."""

    place: Place
    one: str
    other: str
    difference: Difference
    corrected: float

    @property
    def significant(self) -> bool:
        """Whether the two differ, at 0.05 over all pairs of the comparison together."""
        return self.corrected < SIGNIFICANT


class Findings:
    """The figures of a comparison.

    Args:
        entrants: the rows.
        measurements: all of them.
    """

    def __init__(self, entrants: Sequence[Entrant], measurements: Sequence[Measurement]) -> None:
        self.places = list(dict.fromkeys(Place(each.data, *each.shape) for each in measurements))
        groups: dict[tuple[str, Place], list[Measurement]] = {}
        for each in measurements:
            groups.setdefault((each.entrant, Place(each.data, *each.shape)), []).append(each)
        self.cells = {key: _cell(runs) for key, runs in groups.items()}
        self.ranks = self._mean_ranks([each.name for each in entrants])
        own = [each for each in entrants if not each.reference]
        self.entrants = [
            *sorted(own, key=lambda each: (self.ranks[each.name], -self._mean(each.name))),
            *(each for each in entrants if each.reference),
        ]
        self.pairs = self._compare()
        self.by_data = self._rank_data_sets()

    def cell(self, name: str, place: Place) -> Cell | None:
        """An entrant on one set of tasks; None if its learner cannot answer them."""
        return self.cells.get((name, place))

    def leaders(self, place: Place) -> set[str]:
        """The best entrant of a set of tasks, and all that do not differ from it significantly."""
        here = {name: cell.accuracy for (name, at), cell in self.cells.items() if at == place}
        best = max(here, key=here.__getitem__)
        worse = {
            each.other if each.one == best else each.one
            for each in self.pairs
            if each.place == place and best in (each.one, each.other) and each.significant
        }
        return {name for name in here if name not in worse}

    def pair(self, one: str, other: str, place: Place) -> Pair | None:
        """How one entrant differs from another on a set of tasks; None if one of them was not measured there."""
        for each in self.pairs:
            if each.place == place and {each.one, each.other} == {one, other}:
                if each.one == one:
                    return each
                turned = each.difference._replace(mean=-each.difference.mean)
                return Pair(place, one, other, turned, each.corrected)
        return None

    def _mean(self, name: str) -> float:
        return mean([cell.accuracy for (own, _), cell in self.cells.items() if own == name] or [0.0])

    def _mean_ranks(self, names: Sequence[str]) -> dict[str, float]:
        """The mean rank of each entrant over all sets of tasks that it was measured on."""
        ranks: dict[str, list[float]] = {name: [] for name in names}
        for place in self.places:
            here = [name for name in names if (name, place) in self.cells]
            for name, rank in zip(here, ranks_of([self.cells[name, place].accuracy for name in here]), strict=True):
                ranks[name].append(rank)
        return {name: mean(own) if own else float(len(names)) for name, own in ranks.items()}

    def _compare(self) -> list[Pair]:
        pairs = []
        for place in self.places:
            here = [each.name for each in self.entrants if (each.name, place) in self.cells]
            per_task = {name: _stacked(self.cells[name, place]) for name in here}
            pairs += [
                (place, one, other, paired(per_task[one], per_task[other])) for one, other in combinations(here, 2)
            ]
        corrected = holm([difference.p for *_, difference in pairs])
        return [Pair(*each, corrected=p) for each, p in zip(pairs, corrected, strict=True)]

    def _rank_data_sets(self) -> Ranking | None:
        """The ranks over data sets, of the mean accuracy on each; None for one data set, or if cells are missing."""
        sets = list(dict.fromkeys(place.data for place in self.places))
        names = [each.name for each in self.entrants]
        if len(sets) < 2 or len(names) < 2 or len(self.cells) < len(names) * len(self.places):
            return None
        of = {data: [place for place in self.places if place.data == data] for data in sets}
        return ranking([[mean(self.cells[name, at].accuracy for at in of[data]) for name in names] for data in sets])

    def rows(self) -> list[dict[str, Any]]:
        """One row for each entrant and set of tasks, with the columns of a results table."""
        rows = []
        for place in self.places:
            for entrant in self.entrants:
                if cell := self.cell(entrant.name, place):
                    own = {"accuracy": cell.accuracy, "ci95": cell.ci95, "seeds": len(cell.runs), "seed": ""}
                    own["seed_sd"] = "" if cell.seed_sd is None else cell.seed_sd
                    first = cell.runs[0].row
                    means = {
                        name: cell.figure(name)
                        for name in ("train_seconds", "memory_mib", "seconds", *MORE)
                        if cell.figure(name) is not None
                    }
                    rows.append({**first, **means, **own, "rank": self.ranks[entrant.name]})
        return rows

    def differences(self) -> list[dict[str, Any]]:
        """One row for each pair of entrants and set of tasks."""
        return [
            {
                "data": each.place.data,
                "ways": each.place.ways,
                "shots": each.place.shots,
                "one": each.one,
                "other": each.other,
                "difference": each.difference.mean,
                "ci95": each.difference.ci95,
                "p": each.difference.p,
                "p_holm": each.corrected,
                "significant": each.significant,
            }
            for each in self.pairs
        ]


def _cell(runs: Sequence[Measurement]) -> Cell:
    per_task = torch.stack([run.per_task for run in runs])
    accuracy, ci95 = interval(per_task.mean(0))
    means = per_task.mean(1).tolist()
    return Cell(accuracy, ci95, stdev(means) if len(means) > 1 else None, tuple(runs))


def _stacked(cell: Cell) -> torch.Tensor:
    return torch.stack([run.per_task for run in cell.runs])
