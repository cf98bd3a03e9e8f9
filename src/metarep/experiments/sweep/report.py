"""The results of a sweep: a row for each trial, the table, and the best settings as a recipe."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from metarep.experiments.job import Job
from metarep.experiments.recipes import JOB
from metarep.experiments.sweep.space import with_values
from metarep.machine.files import replacing

Row = dict[str, Any]
STATES = {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
LEAD = ("trial", "state", "accuracy", "seed_sd", "seeds")
REST = ("step", "validated_on", "seconds", "folder", "reason")


def row_of(trial: FrozenTrial) -> Row:
    """The row of a trial: its number, state, settings and validation accuracy in percent.

    A trial that is done has the mean accuracy over its seeds. A pruned one has its accuracy at the step where it ended.
    A figure that a trial does not have is None.
    """
    attributes, accuracies = trial.user_attrs, trial.user_attrs.get("accuracies", [])
    rank = attributes.get("rank", trial.number)
    step, last = max(trial.intermediate_values.items(), default=(None, None))
    return {
        "trial": rank,
        "state": STATES.get(trial.state, "running"),
        "accuracy": mean(accuracies) if accuracies else last,
        "seed_sd": stdev(accuracies) if len(accuracies) > 1 else None,
        "seeds": len(accuracies),
        **trial.params,
        "step": step if trial.state == TrialState.PRUNED else None,
        "validated_on": attributes.get("validated_on", ""),
        "seconds": round(attributes["seconds"]) if "seconds" in attributes else None,
        "folder": f"trial-{rank:04d}",
        "reason": attributes.get("reason", ""),
    }


def best_of(rows: Sequence[Row]) -> Row | None:
    """The finished trial with the highest validation accuracy; None if none has finished.

    >>> best_of([{"state": "pruned", "accuracy": 90.0}, {"state": "done", "accuracy": 80.0}])
    {'state': 'done', 'accuracy': 80.0}
    """
    return max((row for row in rows if row["state"] == "done"), key=lambda row: row["accuracy"], default=None)


def write_table(path: Path, rows: Sequence[Row], names: Sequence[str]) -> None:
    """Write the rows to a CSV file.

    Args:
        path: the file.
        rows: from :func:`row_of`.
        names: the settings that were tried.
    """
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*LEAD, *names, *REST], lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows({key: _text(value) for key, value in row.items()} for row in rows)


def recipe_text(job: Job, row: Row, names: Sequence[str], about: str) -> str:
    """The job with the settings of a trial, as a recipe in TOML.

    Args:
        job: the training whose settings were tried.
        row: the trial.
        names: the settings that were tried.
        about: where the settings come from, in one line.

    >>> row = {"lr": 0.01, "width": 32}
    >>> print(recipe_text(Job("protonet"), row, ("lr", "width"), "trial 3 of a sweep"))
    method = "protonet"
    about = "trial 3 of a sweep"
    data = "glyphs"
    encoder = { name = "conv4", width = 32 }
    <BLANKLINE>
    [train]
    lr = 0.01
    <BLANKLINE>
    """
    best = with_values(job, {name: row[name] for name in names})
    fields = {key: getattr(best, key) for key in JOB}
    defaults = {key: getattr(Job(job.method), key) for key in JOB} | {"data": None, "encoder": None}
    lines = [f"method = {_toml(job.method)}", f"about = {_toml(about)}"]
    tables = {key: fields.pop(key) for key in ("settings", "train")}
    lines += [f"{key} = {_toml(value)}" for key, value in fields.items() if value != defaults[key]]
    for key, table in tables.items():
        written = [f"{name} = {_toml(value)}" for name, value in table.items()]
        lines += ["", f"[{key}]", *written] if written else []
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:  # noqa: ANN401 - a value of any setting
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else '"none"' if value is None else repr(value)


def _text(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
