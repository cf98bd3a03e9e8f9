"""Measurement of a trained run and of the reference learners on the same tasks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch

from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.data.superclasses import draw_tasks_within
from metarep.data.task_index import TaskIndex
from metarep.data.tasks import draw_tasks, draw_varied_tasks
from metarep.data.unbalanced import draw_unbalanced_tasks
from metarep.encoders.normalisation import Normalisation
from metarep.errors import MetarepError, one_of
from metarep.experiments.measurement.evaluation import evaluate
from metarep.experiments.measurement.prepared import Prepared
from metarep.experiments.measurement.references import has_untrained, raw_pixels, untrained
from metarep.experiments.measurement.report import Balance, Report, span
from metarep.experiments.measurement.shards import Shard
from metarep.learners import LEARNERS, Learner, read_learner, written
from metarep.weights.checkpoint import Checkpoint


@dataclass(frozen=True)
class Setting:
    """The tasks to measure on.

    Args:
        ways, shots: ranges; a range of one number each gives tasks of one shape.
        queries: query images of each class.
        tasks: the number of tasks.
        seed: seed of the tasks; the same seed gives the same tasks.
        normalisation: the batch statistics to use instead of the learner's own, for learners that adapt the body; None
            for the learner's own.
        given: sets of tasks to measure on instead of drawn ones.
        balance: ``balanced``, equally many queries of each class; or ``dirichlet``, shares from a Dirichlet
            distribution (:func:`metarep.data.unbalanced.draw_unbalanced_tasks`), for transductive learners.
        within: draw the classes of each task from one superclass (:mod:`metarep.data.superclasses`).

    Raises:
        MetarepError: a task needs at least 2 ways and 1 query, and an interval at least 2 tasks.
    """

    ways: range
    shots: range
    queries: int = 15
    tasks: int = 2000
    seed: int = 1
    normalisation: Normalisation | None = None
    given: tuple[TaskIndex, ...] = ()
    balance: Balance = "balanced"
    within: bool = False

    @property
    def shape(self) -> str:
        """Ways and shots as text, such as ``5-way 1-shot``."""
        return f"{span(self.ways)}-way {span(self.shots)}-shot"

    @staticmethod
    def of_tasks(sets: Sequence[TaskIndex], normalisation: Normalisation | None = None) -> "Setting":
        """The setting of tasks that are given.

        Args:
            sets: the sets of tasks.
            normalisation: see the class.
        """
        ways, shots = ([getattr(each, name) for each in sets] for name in ("ways", "shots"))
        spans = range(min(ways), max(ways) + 1), range(min(shots), max(shots) + 1)
        total = sum(len(each) for each in sets)
        sorted_y = [each.query_y.sort(1).values for each in sets]
        even = all(bool((each == each[:1]).all()) for each in sorted_y)
        balanced = even and all(len(set(each.query_y[0].bincount(minlength=each.ways).tolist())) == 1 for each in sets)
        how: dict[str, Any] = {"normalisation": normalisation, "given": tuple(sets)}
        return Setting(*spans, sets[0].queries, total, balance="balanced" if balanced else "unbalanced", **how)

    def draw(self, labels: Labels) -> list[TaskIndex]:
        """The tasks of this setting: those that are given, or drawn on the CPU, the same on every machine.

        Args:
            labels: the labels to draw from.

        Raises:
            MetarepError: tasks of several shapes with unbalanced queries, or within superclasses.
        """
        if self.given:
            return list(self.given)
        how = {"queries": self.queries, "generator": torch.Generator().manual_seed(self.seed)}
        if len(self.ways) == len(self.shots) == 1:
            even = draw_tasks_within if self.within else draw_tasks
            drawn = even if self.balance == "balanced" else draw_unbalanced_tasks
            return [drawn(labels, self.tasks, ways=self.ways[0], shots=self.shots[0], **how)]
        if self.balance != "balanced" or self.within:
            what = "superclasses" if self.within else "unbalanced queries"
            raise MetarepError(f"{what} need tasks of one shape; give one number of ways and one of shots")
        return draw_varied_tasks(labels, self.tasks, ways=self.ways, shots=self.shots, **how)

    def __post_init__(self) -> None:
        one_of("balance", self.balance, get_args(Balance))
        if self.within and self.balance != "balanced":
            raise MetarepError("tasks within superclasses have balanced queries; leave out one of the two")
        for name, given, least in (("ways", min(self.ways), 2), ("queries", self.queries, 1), ("tasks", self.tasks, 2)):
            if given < least:
                raise MetarepError(f"an accuracy needs at least {least} {name}, not {given}")


def pick_learner(trained: Checkpoint, name: str | None) -> Learner:
    """The learner that was trained, or another one on the same encoder.

    Args:
        trained: the trained run.
        name: name of another learner, perhaps with settings; see :func:`metarep.learners.read_learner`. None for the
            one that was trained.

    Raises:
        MetarepError: there is no such learner or setting, or the learner cannot be used with this encoder.
    """
    if name is None:
        return trained.learner
    name, settings = read_learner(name)
    learner = LEARNERS[name](trained.learner.encoder, **settings)
    learner.chosen = written(name, settings)
    return learner


def measure(
    learner: Learner,
    split: Split,
    setting: Setting,
    on_progress: Callable[[float], None] | None = None,
    shard: Shard | None = None,
    reliability: bool = False,
    prepared: Prepared | None = None,
) -> Report:
    """The report of a learner on the tasks of a setting. The tasks are drawn on the CPU, the same on every machine.

    Args:
        learner: the learner, on its device.
        split: images and labels of classes that were not trained on.
        setting: the tasks.
        on_progress: called with the finished share, from 0 to 1.
        shard: measure only this part of the tasks.
        reliability: also measure open set, calibration, worst class and worst task.
        prepared: rows that earlier measurements have prepared; see :func:`evaluate`.
    """
    report = evaluate(
        learner,
        split.bank,
        setting.draw(split.labels),
        split=split.name,
        on_progress=on_progress,
        shard=shard,
        reliability=reliability,
        labels=split.labels,
        prepared=prepared,
    )
    return replace(report, balance=setting.balance, within=setting.within)


def measure_all(
    learner: Learner,
    split: Split,
    settings: Sequence[Setting],
    *,
    references: bool,
    watching: Callable[[str], AbstractContextManager[Callable[[float], None]]] | None = None,
    shard: Shard | None = None,
    reliability: bool = False,
) -> Iterator[tuple[str, Report]]:
    """Measure a learner, and the references if requested, at every setting.

    Args:
        learner: the learner, on its device.
        split: images and labels of classes that were not trained on.
        settings: the tasks of each measurement.
        references: whether to measure ``untrained encoder`` and ``raw pixels`` on the same tasks too. An ONNX graph has
            no untrained form.
        watching: called with a description of each measurement. It returns a context that gives a function, which is
            called with the finished share, from 0 to 1; see :func:`metarep.cli.progress.measuring`.
        shard: measure only this part of the tasks.
        reliability: also measure open set, calibration, worst class and worst task.

    Yields:
        The name of the row (``trained``, ``untrained encoder`` or ``raw pixels``) and its report.
    """
    rows: dict[str, Learner] = {"trained": learner}
    if references:
        device = learner.device
        if has_untrained(learner.encoder):
            rows["untrained encoder"] = untrained(learner.encoder).to(device)
        rows["raw pixels"] = raw_pixels(learner.encoder.preprocess).to(device)
    prepared = {name: Prepared() for name in rows}  # each image goes through the encoder once
    for setting in settings:
        for name, each in rows.items():
            if name != "trained" and setting.normalisation is not None:
                continue  # the references have no inner steps, so this setting does not change them
            what = f"{name}, {setting.shape}"
            with each.using(setting.normalisation), watching(what) if watching else nullcontext() as on_progress:
                report = measure(each, split, setting, on_progress, shard, reliability, prepared[name])
            yield name, report
