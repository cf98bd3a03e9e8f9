"""A comparison of features that other programs have computed: arrays in, the same tables and page out."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from metarep.data.labels import Labels
from metarep.data.task_file import keep_tasks
from metarep.errors import DataError, MetarepError
from metarep.experiments.compare.content import content_of, write_all
from metarep.experiments.compare.entrants import FEATURES, Entrant, Seed
from metarep.experiments.compare.findings import Findings
from metarep.experiments.compare.measurements import Measurement
from metarep.experiments.compare.plan import Comparison
from metarep.experiments.measurement.features import evaluate_features, features_row, read_features
from metarep.experiments.measurement.retrieval import checked_features
from metarep.learners import read_learner
from metarep.weights.checkpoint import Checkpoint

DATA = "features"


def of_features(plan: Comparison) -> bool:
    """Whether a comparison is one of files of features.

    Raises:
        MetarepError: it has files of features and other runs or methods, which have no images in common.
    """
    given = [name.endswith(".npz") for name in plan.runs]
    if any(given) and (plan.methods or not all(given)):
        raise MetarepError(
            "files of features are compared with each other alone, for nothing says which images they are of",
            advice="compute the features of the others too, or leave the files out",
        )
    return any(given)


def compare_features(plan: Comparison, out: Path, save_to: Path | None = None) -> tuple[Findings, dict[str, Any]]:
    """Measure files of features on the same tasks, and write the page and the tables.

    Args:
        plan: its runs are ``.npz`` files with the arrays ``features`` and ``labels``, of the same images in the same
            order, and perhaps ``training``; see :func:`metarep.experiments.measurement.features.read_features`.
        out: a folder for the page and the tables.
        save_to: a file for the tasks; None for none.

    Returns:
        The figures, and the content of ``results.json``.

    Raises:
        DataError: a file is damaged, or two files are of other images.
        MetarepError: a learner cannot be used on features.
    """
    began = time.perf_counter()
    arrays = {name: read_features(Path(name)) for name in plan.runs}
    rows = {name: checked_features(features, labels) for name, (features, labels, _) in arrays.items()}
    first = plan.runs[0]
    known = rows[first][1]
    for name, (_, labels) in rows.items():
        _refuse_others(name, labels, first, known)
    entrants, measured = list[Entrant](), list[Measurement]()
    tasks = [(setting, setting.draw(known)) for setting in plan.settings(known)]
    plan = plan.shaped(tasks[0][0])
    if save_to:
        keep_tasks(save_to, known, tasks[0][1])
    stems = [Path(name).stem for name in plan.runs]
    for name, stem in zip(plan.runs, stems, strict=True):
        for learner in plan.learners or ("prototypes",):
            called = stem if stems.count(stem) == 1 else name
            called += f", {learner}" if len(plan.learners) > 1 else ""
            entrants.append(Entrant(called, FEATURES, "", (Seed(0, name, _no_images),)))
            kind, own = read_learner(learner)
            for setting, sets in tasks:
                report = evaluate_features(
                    rows[name][0],
                    known,
                    kind,
                    tasks=sets,
                    split=DATA,
                    reliability=True,
                    training=arrays[name][2],
                    **own,
                )
                row = features_row(Path(name), replace(report, balance=setting.balance), rows[name][0].shape[1])
                row |= {
                    "method": called,
                    "data": DATA,
                    "family": FEATURES,
                    "seed": 0,
                    "parameters": 0,
                    "memory_mib": "",
                }
                measured.append(Measurement(called, DATA, 0, row | {"train_seconds": ""}, report.per_task))
    findings = Findings(entrants, measured)
    part = {"classes": len(known.names), "images": len(known), "digest": known.digest, "grouped": False}
    queries = {DATA: tasks[0][0].queries}
    facts, seconds = {DATA: {"test": part}}, time.perf_counter() - began
    content = content_of(replace(plan, data=(DATA,)), out, findings, measured, (), facts, queries, seconds)
    out.mkdir(parents=True, exist_ok=True)
    write_all(out, findings, content, {})
    return findings, content


def _refuse_others(name: str, labels: Labels, first: str, known: Labels) -> None:
    """Raise if two files are not of the same images in the same order."""
    if len(labels) != len(known):
        raise DataError(f"{name} has {len(labels):,} images, and {first} has {len(known):,}; give the same images")
    told, wanted = ([each.names[index] for index in each.classes.tolist()] for each in (labels, known))
    if told != wanted:
        row = next(row for row, pair in enumerate(zip(told, wanted, strict=True)) if len(set(pair)) > 1)
        raise DataError(f"{name} and {first} differ in the label of image {row}; give the same images in one order")


def _no_images() -> Checkpoint:
    raise MetarepError("features have no encoder to open")
