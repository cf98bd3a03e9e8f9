"""quickstart: load the data, train, measure, and write the page."""

import json
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from metarep.data.datasets import load_dataset
from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.data.tasks import TaskIndex
from metarep.experiments.job import Job
from metarep.experiments.measurement.evaluation import evaluate
from metarep.experiments.measurement.references import raw_pixels, untrained
from metarep.experiments.measurement.rows import result_row
from metarep.experiments.page.examples import solve_examples
from metarep.experiments.page.maps import draw_maps
from metarep.experiments.quickstart.findings import Findings
from metarep.experiments.quickstart.plan import PLAN, Entry, Plan
from metarep.experiments.quickstart.report import write_report
from metarep.experiments.start import start_on
from metarep.learners import Learner
from metarep.machine.device import Precision, environment, pick_device, pick_precision
from metarep.weights.checkpoint import Checkpoint

Watch = Callable[[str, dict[str, Any]], None]


def quickstart(
    out: Path,
    *,
    data: str = "glyphs",
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    watch: Watch | None = None,
    plan: Plan = PLAN,
) -> dict[str, Any]:
    """Train one method of each family, measure all of them on new classes, and write a page with the results.

    Each training has a run folder of its own, ``out/METHOD``, which ``metarep evaluate`` can measure. A quickstart that
    was interrupted is resumed. The test classes are measured only after all trainings. The method of the headline is
    the best one on *validation*, because choosing the best of several on the test classes would overestimate it.

    Args:
        out: a folder for ``report.html``, ``results.json`` and the runs.
        data: the data set, as ``name`` or ``name:argument``.
        seed: seed of weights, batches and views. The tasks of the measurements do not depend on it.
        device, precision: device and precision of the trainings. Measurements are in float32.
        watch: called now and then with the current phase (the name of a method, then ``measuring``) and a record with
            at least ``step`` and ``steps`` (see ``metarep.train``).
        plan: the methods to train and the tasks to measure on.

    Returns:
        The content of ``results.json``: ``rows`` (one for each measurement, with all fields of its report),
        ``trainings``, ``data``, ``environment``, the paths ``report`` and ``results``, and others.

    Raises:
        MetarepError: an unknown data set, one too small for the tasks, or a folder that holds runs of other settings.
    """
    started = time.perf_counter()
    out, watch = Path(out), watch or (lambda *_: None)
    target = pick_device(device)
    test = load_dataset(data, "test")
    tasks = plan.draw(test)  # first, so that a data set that is too small is refused before the trainings
    chosen = pick_precision(precision, target)
    trained = [_train(entry, out, data, seed, target, chosen, watch) for entry in plan.entries]
    runs = {run.record.method: run for run, _ in trained}
    trainings = [about for _, about in trained]
    for run in runs.values():
        run.refuse_seen(test.labels, test.name)
    first = next(iter(runs.values()))
    learners: dict[str, Learner] = {name: run.learner for name, run in runs.items()}
    learners["untrained encoder"] = untrained(first.learner.encoder, seed).to(target)
    learners["raw pixels"] = raw_pixels(first.learner.encoder.preprocess).to(target)
    best = max(trainings, key=lambda training: training["validation_accuracy"] or 0.0)["method"]
    shown = {name: learners[name].eval() for name in (best, "raw pixels")}
    content = {
        "best": best,
        "data": {part: _facts(load_dataset(data, part)) for part in ("train", "val", "test")} | {"name": data},
        "seed": seed,
        "trainings": trainings,
        "rows": _measure(learners, runs, test, tasks, trainings, watch),
        "environment": environment(),
        "device": target.type,
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": time.perf_counter() - started,
        "report": str(out / "report.html"),
        "results": str(out / "results.json"),
    }
    findings = Findings(
        content,
        columns=[shape for shape in plan.columns(test) if shape in tasks],
        examples=solve_examples(shown, test, tasks=plan.examples, ways=plan.example_ways, seed=plan.seed),
        maps=draw_maps(shown, test, classes=plan.map_classes, seed=plan.seed),
        drawings=first.learner.encoder.preprocess.invert,
    )
    write_report(out / "report.html", findings)
    (out / "results.json").write_text(json.dumps(content, indent=2) + "\n")
    return content


def _train(
    entry: Entry, out: Path, data: str, seed: int, device: torch.device, precision: Precision, watch: Watch
) -> tuple[Checkpoint, dict[str, Any]]:
    """Train one entry in its run folder. Returns the checkpoint, and a description of the training for the page."""
    job = Job(entry.method, entry.settings, entry.train_settings(seed, device, precision), data=data)
    folder = out / entry.method
    run, outcome = start_on(job, folder, device, precision, watch=lambda record: watch(entry.method, record))
    about = {
        "method": entry.method,
        "family": run.method.family,
        "paper": run.method.paper,
        "run": str(folder),
        "seconds": outcome.seconds,
        "kept_step": outcome.step,
        "validation_accuracy": outcome.accuracy,
        "validated_on": outcome.validated_on,
        "precision": precision,
        "settings": run.record.settings,
        "train": run.record.train.as_dict(),
    }
    return run, about


def _measure(
    learners: dict[str, Learner],
    runs: dict[str, Checkpoint],
    test: Split,
    tasks: dict[tuple[int, int], TaskIndex],
    trainings: list[dict[str, Any]],
    watch: Watch,
) -> list[dict[str, Any]]:
    """Measure every learner on every set of tasks. Returns one row for each measurement."""
    first = next(iter(runs.values()))
    more = {each["method"]: {"family": each["family"], "train_seconds": each["seconds"]} for each in trainings}
    paths = {each["method"]: each["run"] for each in trainings}
    rows: list[dict[str, Any]] = []
    for drawn in tasks.values():
        for name, learner in learners.items():
            report = evaluate(learner, test.bank, drawn, split=test.name)
            kind, path = ("trained", paths[name]) if name in runs else (name, "")
            rows.append(
                result_row(runs.get(name, first), kind, report, path, **more.get(name, {"family": "reference"}))
            )
            measured = {"measured": f"{name}, {report.ways}-way {report.shots}-shot", "accuracy": report.accuracy}
            number = {"step": len(rows), "steps": len(tasks) * len(learners)}
            watch("measuring", {**number, **measured, "ci95": report.ci95})
    return rows


def _facts(split: Split) -> dict[str, Any]:
    """The facts about a split that the page shows."""
    return {
        "name": split.name,
        "classes": len(split.labels.names),
        "images": len(split.bank),
        "size": split.bank.size,
        "kinds": kinds(split.labels),
        "grouped": split.labels.groups is not None,
        "digest": split.labels.digest,
    }


def kinds(labels: Labels) -> list[str]:
    """The parts of class names before the ``/`` (scripts, alphabets), sorted by their number of classes.

    The list is empty if a name has no ``/``.

    >>> kinds(Labels.of(["Old_Church_Slavonic/a", "Old_Church_Slavonic/b", "Greek/alpha"]))
    ['Old Church Slavonic', 'Greek']
    """
    if not all("/" in name for name in labels.names):
        return []
    counts = Counter(name.partition("/")[0].replace("_", " ") for name in labels.names)
    return [kind for kind, _ in counts.most_common()]
