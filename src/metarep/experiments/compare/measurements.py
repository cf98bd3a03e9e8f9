"""Measurements: every learner on the same test tasks. Each is kept in a file, so none is made twice."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarep.data.split import Split
from metarep.data.task_index import digest_of
from metarep.errors import MetarepError
from metarep.experiments.compare.entrants import Entrant, Seed, parameters_of
from metarep.experiments.json_files import read_values, write_values
from metarep.experiments.measurement.measure import Setting, measure
from metarep.experiments.measurement.prepared import Prepared
from metarep.experiments.measurement.report import Report, span
from metarep.experiments.measurement.rows import result_row
from metarep.learners import Learner
from metarep.weights.checkpoint import Checkpoint

MEASURED = "measured"
FORMAT = 1  # of the files; raise it when a measurement means something else


@dataclass(frozen=True)
class Measurement:
    """One learner on one set of tasks.

    Args:
        entrant: name of the row.
        data: the data set that the tasks are drawn from.
        seed: seed of the training.
        row: the columns of a results table, and what the training took.
        per_task: accuracy in percent on each task.
    """

    entrant: str
    data: str
    seed: int
    row: dict[str, Any]
    per_task: Float[Tensor, " task"]

    @property
    def shape(self) -> tuple[str, str]:
        """Ways and shots, as text."""
        return self.row["ways"], self.row["shots"]


class Measurements:
    """The measurements of a comparison, in files of the folder ``out/measured``.

    The name of a file is a digest of the weights, of the images and labels, and of the tasks. So what was measured is
    found again, and a run that was trained anew is measured anew.

    Args:
        out: the folder of the comparison.
        device: where to measure.
    """

    def __init__(self, out: Path, device: torch.device) -> None:
        self.folder, self.device = out / MEASURED, device

    def measure(
        self,
        entrant: Entrant,
        seed: Seed,
        opened: Checkpoint,
        data: str,
        split: Split,
        setting: Setting,
        on_progress: Callable[[float], None] | None = None,
        prepared: Prepared | None = None,
    ) -> Measurement:
        """Measure one learner on one set of tasks, or read the measurement from its file.

        Args:
            entrant, seed: the learner's row.
            opened: its checkpoint.
            data: the data set, as the comparison names it.
            split: images and labels of classes that were not trained on.
            setting: the tasks.
            on_progress: called with the finished share, from 0 to 1.
            prepared: rows that earlier measurements of this learner on this data set have prepared.
        """
        learner = opened.learner.to(self.device)
        path = self.folder / f"{_key(learner, split, setting)}.json"
        kept = _read(path) if path.exists() else None
        if kept is None:
            report = measure(learner, split, setting, on_progress, reliability=True, prepared=prepared)
            kept = report, report.as_dict()
            write_values(path, {"report": kept[1], "per_task": report.per_task.tolist()})
        report, figures = kept
        row = self._row(entrant, seed, opened, report)
        more = {name: value for name, value in figures.items() if name not in row}
        return Measurement(entrant.name, data, seed.number, row | more, report.per_task)

    def _row(self, entrant: Entrant, seed: Seed, opened: Checkpoint, report: Report) -> dict[str, Any]:
        kind = entrant.name if entrant.reference else "trained"
        took = seed.trained
        more: dict[str, Any] = {
            "method": entrant.name,
            "family": entrant.family,
            "seed": seed.number,
            "parameters": parameters_of(opened.learner),
            "train_seconds": round(took.seconds, 1) if took else "",
            "memory_mib": round(took.memory / 2**20) if took and took.memory is not None else "",
        }
        if not opened.record.data.name and not entrant.reference:  # a third-party encoder
            more |= {"trained_on": "elsewhere"}
        return result_row(opened, kind, report, seed.run, **more)


def _key(learner: Learner, split: Split, setting: Setting) -> str:
    """A digest of all that a measurement depends on."""
    tasks = asdict(replace(setting, given=())) | {"ways": span(setting.ways), "shots": span(setting.shots)}
    if setting.given:
        tasks["given"] = digest_of(setting.given)
    facts = [FORMAT, learner.called, learner.normalisation, repr(learner.settings), repr(learner.encoder.preprocess)]
    facts += [learner.encoder.arch, split.name, split.labels.digest, list(split.bank.size), len(split.bank), tasks]
    digest = hashlib.sha256(json.dumps(facts, default=str).encode())
    for name, weight in sorted(learner.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def _read(path: Path) -> tuple[Report, dict[str, Any]] | None:
    """The report of a measurement, and all its figures; None for a file that is damaged, and is measured again."""
    try:
        content = read_values(path)
        figures, per_task = content["report"], torch.tensor(content["per_task"], dtype=torch.float32)
        own = {each.name: figures[each.name] for each in fields(Report) if each.name in figures}
        report = Report(**own, per_task=per_task)
        return (report, figures) if len(report.per_task) == report.tasks else None
    except (KeyError, TypeError, ValueError, MetarepError):
        return None
