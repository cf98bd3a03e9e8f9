"""Measurement of a trained run and of the reference learners on the same tasks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from metarep.data.split import Split
from metarep.data.tasks import draw_tasks, draw_varied_tasks
from metarep.encoders.normalisation import Normalisation
from metarep.errors import MetarepError, unknown
from metarep.experiments.evaluation import Report, evaluate
from metarep.experiments.references import raw_pixels, untrained
from metarep.experiments.results import commit
from metarep.experiments.shards import Shard
from metarep.learners import LEARNERS, Learner
from metarep.machine.device import hardware
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

    Raises:
        MetarepError: a task needs at least 2 ways and 1 query, and an interval at least 2 tasks.
    """

    ways: range
    shots: range
    queries: int = 15
    tasks: int = 2000
    seed: int = 1
    normalisation: Normalisation | None = None

    def __post_init__(self) -> None:
        for name, given, least in (("ways", min(self.ways), 2), ("queries", self.queries, 1), ("tasks", self.tasks, 2)):
            if given < least:
                raise MetarepError(f"an accuracy needs at least {least} {name}, not {given}")


def pick_learner(trained: Checkpoint, name: str | None) -> Learner:
    """The learner that was trained, or another one on the same encoder.

    Args:
        trained: the trained run.
        name: name of another learner; None for the one that was trained.

    Raises:
        MetarepError: there is no learner of this name.
    """
    if name is None:
        return trained.learner
    if name not in LEARNERS:
        raise unknown("learner", name, LEARNERS)
    return LEARNERS[name](trained.learner.encoder)


def measure(
    learner: Learner,
    split: Split,
    setting: Setting,
    on_progress: Callable[[float], None] | None = None,
    shard: Shard | None = None,
) -> Report:
    """The report of a learner on the tasks of a setting. The tasks are drawn on the CPU, the same on every machine.

    Args:
        learner: the learner, on its device.
        split: images and labels of classes that were not trained on.
        setting: the tasks.
        on_progress: called with the finished share, from 0 to 1.
        shard: measure only this part of the tasks.
    """
    generator = torch.Generator().manual_seed(setting.seed)
    draw = {"queries": setting.queries, "generator": generator}
    if len(setting.ways) == len(setting.shots) == 1:
        tasks = draw_tasks(split.labels, setting.tasks, ways=setting.ways[0], shots=setting.shots[0], **draw)
    else:
        tasks = draw_varied_tasks(split.labels, setting.tasks, ways=setting.ways, shots=setting.shots, **draw)
    return evaluate(learner, split.bank, tasks, split=split.name, on_progress=on_progress, shard=shard)


def measure_all(
    learner: Learner,
    split: Split,
    settings: Sequence[Setting],
    *,
    references: bool,
    watching: Callable[[str], AbstractContextManager[Callable[[float], None]]] | None = None,
    shard: Shard | None = None,
) -> Iterator[tuple[str, Report]]:
    """Measure a learner, and the references if requested, at every setting.

    Args:
        learner: the learner, on its device.
        split: images and labels of classes that were not trained on.
        settings: the tasks of each measurement.
        references: whether to measure ``untrained encoder`` and ``raw pixels`` on the same tasks too.
        watching: called with a description of each measurement. It returns a context that gives a function, which is
            called with the finished share, from 0 to 1; see :func:`metarep.cli.progress.measuring`.
        shard: measure only this part of the tasks.

    Yields:
        The name of the row (``trained``, ``untrained encoder`` or ``raw pixels``) and its report.
    """
    rows: dict[str, Learner] = {"trained": learner}
    if references:
        device = learner.device
        rows["untrained encoder"] = untrained(learner.encoder).to(device)
        rows["raw pixels"] = raw_pixels(learner.encoder.preprocess).to(device)
    for setting in settings:
        for name, each in rows.items():
            if name != "trained" and setting.normalisation is not None:
                continue  # the references have no inner steps, so this setting does not change them
            what = f"{name}, {_span(setting.ways)}-way {_span(setting.shots)}-shot"
            with each.using(setting.normalisation), watching(what) if watching else nullcontext() as on_progress:
                report = measure(each, split, setting, on_progress, shard)
            yield name, report


def _span(values: range) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]}-{values[-1]}"


def beginning(init: str | None, teacher: str | None) -> str:
    """What a training began with, as result rows say it in the column ``init``.

    Args:
        init: name of the run that the encoder was initialised from; None or empty for random weights.
        teacher: name of the run that taught it; None or empty without one.

    >>> beginning(None, "baseline-cifar-fs")
    'random, taught by baseline-cifar-fs'
    """
    return (init or "random") + (f", taught by {teacher}" if teacher else "")


def result_row(trained: Checkpoint, name: str, report: Report, path: Path | str, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    """A row of a results table: the report, and how the run was trained.

    Args:
        trained: the trained run, also for a reference row.
        name: ``trained``, or the name of the reference.
        report: its measurement.
        path: the run folder.
        more: values that replace or add columns.

    Returns:
        The value of each column, by name.
    """
    run, encoder = trained.record, trained.learner.encoder.arch
    own = name == "trained"
    source, _, split = report.split.rpartition("/")
    return {
        **report.as_dict(),
        "method": run.method if own else name,
        "data": source,
        "split": split,
        "trained_on": f"{run.data.name}/{run.data.split}" if own else "",
        "labels": run.labels if own else "none",
        "init": (beginning(run.init, run.teacher) if own else "random") if name != "raw pixels" else "",
        "encoder": f"{encoder['name']}-{encoder.get('width', 64)}" if name != "raw pixels" else "none",
        "normalisation": report.normalisation if name != "raw pixels" else "none",
        "seeds": 1,
        "hardware": hardware(),
        "recipe": "",
        "commit": commit(),
        "run": str(path),
        **more,
    }
