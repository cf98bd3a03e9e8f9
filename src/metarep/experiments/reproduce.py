"""reproduce: train a recipe, measure it, and write its rows into a results table."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from metarep.data.datasets import load_dataset
from metarep.errors import MetarepError
from metarep.experiments.job import Job
from metarep.experiments.measurement.evaluation import Report
from metarep.experiments.measurement.lake_runs import RUNS, runs_row
from metarep.experiments.measurement.measure import Setting, measure_all, pick_learner
from metarep.experiments.measurement.results import read, record
from metarep.experiments.measurement.rows import beginning, result_row
from metarep.experiments.readings import Watch
from metarep.experiments.recipes import Recipe, load_recipe, recipe_names
from metarep.experiments.run_folder import MODEL
from metarep.experiments.saved_states import SavedStates
from metarep.experiments.start import start
from metarep.machine.ranks import gather_values, joined, rank, ranks


def reproduce(
    name: str,
    out: Path,
    results: Path,
    *,
    train_on: str = "trainval",
    seeds: int = 1,
    tasks: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    data_dir: Path | None = None,
    watch: Watch | None = None,
) -> list[dict[str, Any]]:
    """Train a recipe, and measure it at every setting that it names.

    With ``train_on="trainval"`` the last weights are measured once, on the test classes. With ``train`` the weights
    with the best validation accuracy are measured on the validation classes; the steps of a recipe are chosen so. A
    recipe may start from another recipe, learn from it, or train on clusters of its features. Then the other one is
    trained first with the same seed, unless its run exists.

    Args:
        name: name of the recipe.
        out: the folder of the run folders ``out/NAME-SPLIT-SEED``. A run that exists is resumed.
        results: the folder of the results tables; the rows go into ``DATA.csv``.
        train_on: ``trainval`` or ``train``.
        seeds: number of trainings. The accuracy is the mean over them, ``seed_sd`` is their standard deviation, and the
            interval over tasks is that of seed 0. Several processes share the seeds, if there are as many.
        tasks: number of tasks of each measurement; None for the number in the recipe, or 10,000.
        device, precision, data_dir: see :func:`metarep.experiments.start.start`.
        watch: called now and then with the progress of each training and of each measurement; see
            :func:`metarep.experiments.training.train`.

    Returns:
        The rows that were written; the value of each column, by name.

    Raises:
        MetarepError: an unknown recipe, fewer than 1 seed, or a table that cannot be read.
    """
    recipe = load_recipe(name)
    if seeds < 1:
        raise MetarepError(f"seeds must be at least 1, not {seeds}")
    measured = "test" if train_on == "trainval" else "val"
    settings = [
        Setting(
            _one(row["ways"]),
            _one(row["shots"]),
            tasks=row.get("tasks", 10000) if tasks is None else tasks,
            normalisation=row.get("normalisation"),
            within=row.get("within", False),
        )
        for row in recipe.measure
        if "ways" in row and row.get("only", measured) == measured
    ]
    own_runs = [row for row in recipe.measure if row.get("data") == RUNS]
    for data in (recipe.job["data"], RUNS):
        read(_table(results, data))  # an unreadable table is an error now and not after hours of training
    machine = {"device": device, "precision": precision, "data_dir": data_dir, "watch": watch}
    watching = measuring_by(watch) if watch else None

    def rows_of(seed: int) -> list[dict[str, Any]]:
        folder, rows = _folder(out, name, train_on, seed), []
        job = recipe_job(recipe, out, train_on, seed, machine)
        trained, outcome = start(job, folder, **machine)
        split = load_dataset(job.data, measured, size=job.size, data_dir=data_dir)
        trained.refuse_leak(split.labels, split.name, job.data, measured)
        more = {"recipe": name, "source": recipe.source, "train_seconds": round(outcome.seconds)}
        learners = [trained.learner]
        if recipe.learner is not None:
            learners.append(pick_learner(trained, recipe.learner).to(trained.learner.device))
        reports = []
        for each in learners:
            first = each is trained.learner and seed == 0
            reports += measure_all(each, split, settings, references=first, watching=watching)
        for row_name, report in reports:
            own = more | {"published": _published(recipe, report)} if row_name == "trained" else {}
            own |= {"init": beginning(recipe.job.get("init"), recipe.job.get("teacher"))} if own else {}
            rows.append(result_row(trained, row_name, report, folder, **own))
        if measured == "test":
            own = more | {"size": trained.learner.encoder.preprocess.size[0], "data_dir": data_dir}
            for row in own_runs:
                own["published"] = row.get("published", "")
                rows += [runs_row(trained, each, folder, **own) for each in learners]
        return rows

    rows = _over_seeds(_each_seed(rows_of, seeds))
    for data in dict.fromkeys(row["data"] for row in rows) if rank() == 0 else ():
        record(_table(results, data), [row for row in rows if row["data"] == data])
    return rows


def _table(results: Path, data: str) -> Path:
    """The table that holds the rows of a data set."""
    return results / f"{data.partition(':')[0]}.csv"


def _each_seed(rows_of: Callable[[int], list[dict[str, Any]]], seeds: int) -> list[dict[str, Any]]:
    """The rows of all seeds, in order. Of several processes, each takes whole seeds if there are enough of them."""
    if seeds < ranks():
        return [row for seed in range(seeds) for row in rows_of(seed)]
    own = range(rank(), seeds, ranks())
    with joined(ranks() == 1):
        mine = {str(seed): rows_of(seed) for seed in own}
    every = {int(seed): rows for one in gather_values(mine) for seed, rows in one.items()}
    return [row for seed in sorted(every) for row in every[seed]]


def measuring_by(watch: Watch) -> Callable[[str], contextlib.AbstractContextManager[Callable[[float], None]]]:
    """The argument ``watching`` of ``measure_all`` that reports to ``watch``.

    Args:
        watch: called with ``phase``, ``step``, ``steps`` and ``seconds_left``, as by a training.
    """

    @contextlib.contextmanager
    def watching(what: str) -> Iterator[Callable[[float], None]]:
        began = time.monotonic()

        def report(share: float) -> None:
            left = (time.monotonic() - began) * (1 - share) / max(share, 1e-9)
            watch({"phase": f"measuring {what}", "step": round(100 * share), "steps": 100, "seconds_left": left})

        yield report

    return watching


def recipe_job(recipe: Recipe, out: Path, train_on: str, seed: int, machine: dict[str, Any]) -> Job:
    """The job of a recipe. Runs that it is based on are trained first if they do not exist.

    Args:
        recipe: the recipe.
        out: the folder of the run folders.
        train_on: ``train`` or ``trainval``.
        seed: seed of the training.
        machine: ``device``, ``precision``, ``data_dir`` and ``watch`` of :func:`metarep.experiments.start.start`.
    """
    fields = {**recipe.job, "train": {**recipe.job.get("train", {}), "seed": seed}}

    def run(text: str) -> str:
        return str(_trained(text, out, train_on, seed, machine)) if text in recipe_names() else text

    fields |= {name: run(fields[name]) for name in ("init", "teacher") if name in fields}
    kind, _, source = fields.get("labels", "").partition(":")
    if source:
        fields["labels"] = f"{kind}:{run(source)}"
    return Job(recipe.method, train_on=train_on, **fields)


def _trained(name: str, out: Path, train_on: str, seed: int, machine: dict[str, Any]) -> Path:
    """The folder of the finished run of a recipe. A run that was interrupted is finished first."""
    folder = _folder(out, name, train_on, seed)
    if not (folder / MODEL).exists() or SavedStates(folder).files:
        start(
            recipe_job(load_recipe(name), out, train_on, seed, machine), folder, **machine
        )  # returns at once if all steps are done
    return folder


def _folder(out: Path, name: str, train_on: str, seed: int) -> Path:
    return out / f"{name}-{train_on}-{seed}"


def _published(recipe: Recipe, report: Report) -> float | str:
    """The published accuracy for this shape of tasks, with the same batch statistics if the recipe has them."""
    tasks = [row for row in recipe.measure if "ways" in row]
    shape = (report.ways, report.shots, report.within)
    same_shape = [row for row in tasks if (str(row["ways"]), str(row["shots"]), row.get("within", False)) == shape]
    exact = [row for row in same_shape if row.get("normalisation") == report.normalisation]
    return (exact or same_shape or [{}])[0].get("published", "")


def _one(number: int) -> range:
    return range(number, number + 1)


def _over_seeds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each measurement, with the mean and the standard deviation over seeds."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        key = (*(row[name] for name in ("data", "method", "learner", "ways", "shots", "normalisation")),)
        groups.setdefault(key, []).append(row)
    merged = []
    for same in groups.values():
        values = [row["accuracy"] for row in same]
        spread = {"seeds": len(values), "seed_sd": stdev(values), "accuracy": mean(values)} if len(values) > 1 else {}
        merged.append({**same[0], **spread})
    return merged
