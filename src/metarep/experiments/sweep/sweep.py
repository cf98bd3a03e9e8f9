"""sweep: train a method with many settings, and choose among them on validation classes."""

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import MedianPruner, NopPruner
from optuna.trial import TrialState

from metarep.errors import MetarepError
from metarep.experiments.job import Job
from metarep.experiments.readings import CollapsedError, DivergedError, Watch
from metarep.experiments.start import start
from metarep.experiments.sweep.plot import write_plot
from metarep.experiments.sweep.report import Row, best_of, recipe_text, row_of, write_table
from metarep.experiments.sweep.sampler import grid_of
from metarep.experiments.sweep.space import Space, check_sweep, described, with_values
from metarep.experiments.sweep.study import Attempt, SharedStudy, reachable
from metarep.machine.files import locked, replacing
from metarep.methods import METHODS

STORAGE = "study.db"
TRIALS = 20  # by default, if there is no budget of time
UNPRUNED = 4  # trials that are done before the first one may be pruned


class PrunedError(Exception):
    """A trial is ended early: its validation accuracy is below the median of the others at the same step."""


class OutOfTimeError(Exception):
    """The budget of time is used up."""


@dataclass(frozen=True)
class Swept:
    """What a sweep has found so far.

    Args:
        rows: one for each trial; see :func:`metarep.experiments.sweep.report.row_of`.
        best: the finished trial with the highest validation accuracy; None if none has finished.
        label_free: whether the trainings read no true labels, so that this choice by validation labels is the first use
            of labels.
    """

    rows: list[Row]
    best: Row | None
    label_free: bool


def sweep(
    job: Job,
    out: Path,
    space: Space,
    *,
    seeds: int = 1,
    trials: int | None = None,
    budget: float | None = None,
    prune: bool = True,
    storage: str | None = None,
    study: str | None = None,
    watch: Watch | None = None,
    **machine: Any,  # noqa: ANN401 - see below
) -> Swept:
    """Train a job with many values of its settings, and choose among them by their accuracy on validation classes.

    A space of choices alone is searched completely, in random order. Otherwise Optuna's TPE sampler draws each trial.
    Test classes are never read. ``trials.csv``, ``trials.png`` and the recipe ``best.toml`` are written after each
    trial.

    A sweep that was interrupted goes on from there, and several processes may run the same sweep at once. A trial that
    diverges has failed, and the sweep goes on. Any other error ends the sweep; when it goes on, the trial is tried once
    more before it has failed.

    Args:
        job: the training; its other settings are the same in all trials.
        out: the folder of the sweep. Each training is a run folder in it, ``trial-0003-seed-0``.
        space: the values of each setting, by its name.
        seeds: trainings of a trial, with the job's seed and those that follow. Their mean accuracy counts.
        trials: number of trials of all processes together; None for 20, or for any number within a ``budget``. A space
            of choices has no more trials than combinations.
        budget: seconds after which this process stops. The trial that it is training then goes on in the next call.
        prune: whether to end a trial early if its accuracy is below the median of the others at the same step. It is
            decided in the training with the first seed.
        storage: where the trials are kept: a URL of a database, or a path that ends with ``.journal``; None for
            ``study.db`` in ``out``, in SQLite.
        study: name of the study in the storage; None for the method and the data set.
        watch: called now and then with the progress of each training; see :func:`metarep.experiments.training.train`.
        machine: ``device``, ``precision``, ``data_dir`` and ``skip_bad``; see
            :func:`metarep.experiments.start.start`.

    Raises:
        MetarepError: a setting or a value cannot be used, the data has no validation classes, the storage cannot be
            opened, or the study is of another sweep.
    """
    check_sweep(job, space, seeds=seeds, trials=trials, budget=budget)
    combinations = len(grid_of(space))
    most = TRIALS if trials is None and budget is None else trials
    most = min(most or combinations, combinations) if combinations else most
    out.mkdir(parents=True, exist_ok=True)
    first = job.train_settings.seed
    with locked(out / ".opening.lock"), reachable():
        shared = SharedStudy(
            storage or f"sqlite:///{out / STORAGE}",
            study or f"{job.method}-{job.data.partition(':')[0]}",
            described(job, space) | {"seeds": seeds},
            space,
            first,
            MedianPruner(UNPRUNED) if prune else NopPruner(),
            out,
        )
    deadline = None if budget is None else time.monotonic() + budget
    with reachable():
        swept = _write(out, job, space, shared)
        while deadline is None or time.monotonic() < deadline:
            # UpdateFinishedTrialError: another machine saw no heartbeat for long, and has taken the trial over.
            with suppress(OutOfTimeError, UpdateFinishedTrialError), shared.next(most) as attempt:
                if attempt is None:
                    break
                watching = _watching(attempt, watch or _unwatched, deadline)
                _run(attempt, shared, job, out, range(first, first + seeds), watching, machine)
            swept = _write(out, job, space, shared)
        return swept


def _run(
    attempt: Attempt, shared: SharedStudy, job: Job, out: Path, seeds: range, watch: Watch, machine: dict[str, Any]
) -> None:
    """Train a trial with each seed, and store its result in the study."""
    trial, began = attempt.trial, time.monotonic()
    changed, accuracies, state = with_values(job, attempt.values), [], TrialState.COMPLETE
    try:
        for seed in seeds:
            one = replace(changed, train={**changed.train, "seed": seed})
            _, outcome = start(one, out / f"{attempt.folder}-seed-{seed}", watch=watch, **machine)
            if outcome.accuracy is None:
                raise MetarepError(f"{job.data} has no validation tasks, on which a sweep could choose")
            accuracies.append(outcome.accuracy)
            trial.set_user_attr("validated_on", f"val, {outcome.validated_on}")
    except PrunedError:
        state = TrialState.PRUNED
    except MetarepError as error:
        if not isinstance(error, DivergedError | CollapsedError) and not attempt.again:
            raise  # such as missing data; the trial is repeated when the sweep is continued
        state = TrialState.FAIL
        trial.set_user_attr("reason", error.message)
    trial.set_user_attr("accuracies", accuracies)
    trial.set_user_attr("seconds", time.monotonic() - began)
    shared.tell(trial, mean(accuracies) if state == TrialState.COMPLETE else None, state)


def _watching(attempt: Attempt, watch: Watch, deadline: float | None) -> Watch:
    """A ``watch`` that also reports validations to the study, and ends a trial that is pruned or out of time."""
    seeds: list[int] = []

    def see(record: dict[str, Any]) -> None:
        if not seeds or record["step"] < seeds[-1]:
            seeds.append(0)  # the training with the next seed has begun
        seeds[-1] = record["step"]
        watch({**record, "phase": attempt.folder})
        if "accuracy" in record and len(seeds) == 1:
            attempt.trial.report(record["accuracy"], record["step"])
            if record["step"] < record["steps"] and attempt.trial.should_prune():
                raise PrunedError
        if deadline is not None and time.monotonic() > deadline and record["step"] < record["steps"]:
            raise OutOfTimeError

    return see


def _write(out: Path, job: Job, space: Space, shared: SharedStudy) -> Swept:
    """Write the table, the plot and the recipe of all trials so far."""
    rows = sorted((row_of(each) for each in shared.trials), key=lambda row: row["trial"])
    best = best_of(rows)
    free = METHODS[job.method].eats.label_free or job.labels != "true"
    write_table(out / "trials.csv", rows, [*space])
    if best:
        write_plot(out / "trials.png", rows, space, f"{job.method} on {job.data}: {len(rows)} trials")
        about = f"{best['folder']} of a sweep, chosen by {best['accuracy']:.2f} % on {best['validated_on']}"
        about += "; labels of validation classes chose its settings" if free else ""
        with replacing(out / "best.toml") as partial:
            partial.write_text(recipe_text(job, best, [*space], about), "utf-8")
    return Swept(rows, best, free)


def _unwatched(_: dict[str, Any]) -> None:
    """Ignore a progress record: the default of ``watch``."""
