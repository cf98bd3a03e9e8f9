"""evaluate: the accuracy of a learner on tasks, as a Report with everything that makes it comparable."""

import time
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Shaped
from torch import Tensor

from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.task_index import TaskIndex, digest_of
from metarep.data.unknown import draw_unknown
from metarep.encoders.finite import refuse_lost_weights
from metarep.encoders.modes import evaluating
from metarep.errors import MetarepError
from metarep.experiments.measurement.interval import interval
from metarep.experiments.measurement.prepared import Prepared, prepare_all, prepare_more
from metarep.experiments.measurement.reliability import Reliability, Tally
from metarep.experiments.measurement.report import Report, span
from metarep.experiments.measurement.shards import Shard
from metarep.experiments.measurement.task_runs import run_tasks
from metarep.learners import Learner
from metarep.machine.device import keep_freed_memory

__all__ = ["Report", "evaluate", "evaluate_rows"]


def evaluate(
    learner: Learner,
    bank: ImageBank,
    tasks: TaskIndex | Sequence[TaskIndex],
    *,
    split: str = "",
    batch: int = 256,
    on_progress: Callable[[float], None] | None = None,
    shard: Shard | None = None,
    reliability: bool = False,
    labels: Labels | None = None,
    prepared: Prepared | None = None,
) -> Report:
    """Measure the accuracy of a learner on tasks.

    Every image of the tasks is prepared once; then the tasks run on the cached rows. Inside
    :func:`metarep.machine.ranks.joined` each process prepares its part of the images and runs its part of the tasks, in
    the same chunks as a single process, so the report has the same digits. Meanwhile the learner is in
    evaluation mode, so that norm layers use their running statistics and the logits of a query never depend on other
    queries.

    Args:
        learner: the learner, on the device to use.
        bank: the images, of classes that the encoder has not seen.
        tasks: from ``draw_tasks``; or several sets of different shapes, which are pooled.
        split: name of the data, for the report.
        batch: number of images prepared at a time.
        on_progress: called with the finished share, from 0 to 1.
        shard: measure only this part of the tasks. The parts are merged by
            :func:`metarep.experiments.measurement.shards.merge_shards`.
        reliability: also measure open set, calibration, worst class and worst task. The accuracy stays the same.
        labels: the classes that unknown queries are drawn from, for the open set.
        prepared: the rows of earlier measurements of this learner on this bank, which are not prepared again; new rows
            are added to them. None for none.

    Returns:
        The report, with accuracies in percent.

    Raises:
        DataError: an image has NaN or infinite features, so its answer would be a guess.
        MetarepError: there are no tasks; or the encoder, or the learner on some tasks, gives NaN or infinite values.

    >>> from metarep import Encoder, ImageBank, Labels, Preprocess, Prototypes, draw_tasks
    >>> bank = ImageBank.from_arrays(torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1).expand(40, 1, 4, 4) * 6)
    >>> labels = Labels.of([i // 10 for i in range(40)])
    >>> pixels = Prototypes(Encoder(torch.nn.Flatten(), Preprocess((4, 4), 1, (0.0,), (1.0,))))
    >>> tasks = draw_tasks(labels, 50, ways=4, shots=3, queries=5, generator=torch.Generator().manual_seed(0))
    >>> evaluate(pixels, bank, tasks).accuracy > 60
    True
    """
    started = time.perf_counter()
    keep_freed_memory()
    sets = [tasks] if isinstance(tasks, TaskIndex) else list(tasks)
    _refuse_none(sets)
    ready = learner.state_numbers or (prepared is not None and prepared.rows is not None)
    before = 0.0 if ready else 0.8  # share of the time for preparing rows; 0 if they are ready, or are the images
    refuse_lost_weights(learner.encoder)
    with torch.no_grad(), evaluating(learner):
        name = split or "the data"

        def report_preparing(done: float) -> object:
            return on_progress and on_progress(done * before)

        rows = prepare_all(learner, bank, sets, batch, report_preparing, name, prepared)
        unknown, lacking = _unknown(labels, sets) if reliability else (None, "")
        if unknown is not None:
            prepare_more(learner, bank, rows, sets, unknown, batch, name)

        def report_running(done: float) -> object:
            return on_progress and on_progress(before + done * (1 - before))

        per_task, tally = run_tasks(learner.settled(), rows, sets, report_running, shard, reliability, unknown)
    return _report(learner, sets, split, per_task, tally, lacking, started)


def evaluate_rows(
    learner: Learner,
    rows: Shaped[Tensor, "n *row"],
    sets: Sequence[TaskIndex],
    *,
    split: str = "",
    reliability: bool = False,
    labels: Labels | None = None,
) -> Report:
    """Measure the accuracy of a learner on tasks of rows that are prepared already; otherwise as :func:`evaluate`.

    Args:
        learner: the learner.
        rows: one row for each image, as the learner's ``prepare`` gives them, on its device.
        sets: the sets of tasks.
        split, reliability, labels: see :func:`evaluate`.

    Raises:
        MetarepError: there are no tasks, or the learner gives NaN or infinite logits on some.
    """
    started = time.perf_counter()
    keep_freed_memory()
    _refuse_none(sets)
    with torch.no_grad(), evaluating(learner):
        unknown, lacking = _unknown(labels, sets) if reliability else (None, "")
        per_task, tally = run_tasks(
            learner.settled(), learner.settle(rows), sets, lambda _: None, None, reliability, unknown
        )
    return _report(learner, sets, split, per_task, tally, lacking, started)


def _refuse_none(sets: Sequence[TaskIndex]) -> None:
    """Raise an error if there are no tasks."""
    if not sum(len(part) for part in sets):
        raise MetarepError("there are no tasks to evaluate on; draw at least one")


def _report(
    learner: Learner,
    sets: Sequence[TaskIndex],
    split: str,
    per_task: Tensor,
    tally: Tally | None,
    lacking: str,
    started: float,
) -> Report:
    """The report of tasks that were run."""
    accuracy, ci95 = interval(per_task)
    return Report(
        accuracy=accuracy,
        ci95=ci95,
        tasks=len(per_task),
        ways=span([part.ways for part in sets]),
        shots=span([part.shots for part in sets]),
        queries=sets[0].queries,
        protocol=learner.protocol,
        normalisation=learner.normalisation,
        learner=learner.called,
        split=split,
        digest=digest_of(sets),
        seconds=time.perf_counter() - started,
        per_task=per_task,
        reliability=Reliability.of(tally, per_task, lacking) if tally else None,
    )


def _unknown(labels: Labels | None, sets: Sequence[TaskIndex]) -> tuple[list[Tensor] | None, str]:
    """The unknown queries of each set of tasks, or None and the reason. The same tasks give the same queries."""
    if labels is None:
        return None, "the labels were not given"
    generator = torch.Generator().manual_seed(int(digest_of(sets), 16))
    drawn = []
    for part in sets:
        rows = draw_unknown(labels, part, generator)
        if rows is None:
            return None, (
                f"{part.ways} known and {part.ways} unknown classes of {part.queries} queries are more than the "
                f"{len(labels.names)} classes can give"
            )
        drawn.append(rows)
    return drawn, ""
