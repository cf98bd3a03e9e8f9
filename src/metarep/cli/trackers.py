"""Trackers: TensorBoard, MLflow, Weights & Biases and Trackio, which get the figures of a training."""

import contextlib
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from metarep.errors import MetarepError, missing_extra, one_line
from metarep.machine.files import replacing
from metarep.machine.untrusted import parse_json
from metarep.weights.hub.contents import SETTINGS

KNOWN = "trackers.json"  # in the run folder: the run of each tracker, which a resumed training continues
PROJECT = "metarep"
MOST, LONGEST = 100, 500  # settings in one call of MLflow, and characters of a setting


class TrackerWarning(UserWarning):
    """Warns that a tracker cannot be reached any more. The training goes on without it."""


@runtime_checkable
class Tracker(Protocol):
    """What a tracker does with a training. Each one is made before the training, which may still be refused.

    Attributes:
        advice: what to do if it cannot start.
    """

    advice: str

    def start(self, folder: Path, known: str | None, settings: dict[str, Any]) -> str:
        """Begin a run, or continue the one that is ``known``; returns its name there."""
        ...

    def log(self, figures: dict[str, float], step: int) -> None:
        """Write the figures of a step."""
        ...

    def end(self, *, failed: bool) -> None:
        """End the run; ``failed`` if the training did not come to its end."""
        ...


class TensorBoard:
    """Event files in the run folder, for ``tensorboard --logdir``."""

    advice = ""

    def __init__(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer_of, self.writer = SummaryWriter, None

    def start(self, folder: Path, known: str | None, settings: dict[str, Any]) -> str:  # noqa: ARG002 - as the others
        self.writer = self.writer_of(str(folder / "tensorboard"))
        return "tensorboard"

    def log(self, figures: dict[str, float], step: int) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)  # pyright: ignore[reportOptionalMemberAccess] - it has started

    def end(self, *, failed: bool) -> None:  # noqa: ARG002 - as the others
        self.writer.close()  # pyright: ignore[reportOptionalMemberAccess]


class MLflow:
    """A run of the experiment ``MLFLOW_EXPERIMENT_NAME``, or ``metarep``, where ``MLFLOW_TRACKING_URI`` says."""

    advice = "set MLFLOW_TRACKING_URI to a server or a database, or pip install mlflow"

    def __init__(self) -> None:
        self.mlflow: Any = import_module("mlflow")
        self.metric, self.setting, self.run = self.mlflow.entities.Metric, self.mlflow.entities.Param, ""

    def start(self, folder: Path, known: str | None, settings: dict[str, Any]) -> str:
        self.client = self.mlflow.MlflowClient()
        if known:
            with contextlib.suppress(self.mlflow.exceptions.MlflowException):  # another server than before
                self.run = self.client.get_run(known).info.run_id
                self.client.update_run(self.run, status="RUNNING")
                return self.run
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self.client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self.client.create_experiment(name)
        self.run = self.client.create_run(experiment, run_name=folder.name).info.run_id
        texts = [self.setting(name, str(value)[:LONGEST]) for name, value in settings.items()]
        for start in range(0, len(texts), MOST):
            self.client.log_batch(self.run, params=texts[start : start + MOST])
        return self.run

    def log(self, figures: dict[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        self.client.log_batch(self.run, [self.metric(name, value, now, step) for name, value in figures.items()])

    def end(self, *, failed: bool) -> None:
        self.client.set_terminated(self.run, status="FAILED" if failed else "FINISHED")


class WandB:
    """A run of the project ``WANDB_PROJECT``, or ``metarep``."""

    advice = "log in with 'wandb login', or set WANDB_MODE=offline"

    def __init__(self) -> None:
        self.wandb: Any = import_module("wandb")
        self.run: Any = None

    def start(self, folder: Path, known: str | None, settings: dict[str, Any]) -> str:
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        options = {"name": folder.name, "id": known, "resume": "allow", "config": settings, "dir": str(folder)}
        self.run = self.wandb.init(project=project, **options)
        return str(self.run.id)

    def log(self, figures: dict[str, float], step: int) -> None:
        self.run.log(figures, step=step)

    def end(self, *, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


class Trackio:
    """A run of the project ``TRACKIO_PROJECT``, or ``metarep``; ``trackio show`` opens it."""

    advice = ""

    def __init__(self) -> None:
        self.trackio: Any = import_module("trackio")

    def start(self, folder: Path, known: str | None, settings: dict[str, Any]) -> str:
        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        options = {"name": known or folder.name, "resume": "allow" if known else "never", "config": settings}
        run = self.trackio.init(project=project, **options)
        return str(run.name)

    def log(self, figures: dict[str, float], step: int) -> None:
        self.trackio.log(figures, step=step)

    def end(self, *, failed: bool) -> None:  # noqa: ARG002 - Trackio does not ask
        self.trackio.finish()


TRACKERS: dict[str, tuple[str, type[Tracker]]] = {
    "tensorboard": ("TensorBoard", TensorBoard),
    "mlflow": ("MLflow", MLflow),
    "wandb": ("Weights & Biases", WandB),
    "trackio": ("Trackio", Trackio),
}


@contextlib.contextmanager
def tracking(name: str, folder: Path) -> Iterator[Any]:
    """Context that yields a ``watch`` for a training, which sends each figure to a tracker.

    The run begins with the first record, so that a training that is refused leaves none. If the tracker fails later, a
    warning says so, and the training goes on.

    Args:
        name: one of :data:`TRACKERS`.
        folder: the run folder.

    Raises:
        MetarepError: its package is not installed, or it cannot begin a run.

    Warns:
        TrackerWarning: it does not take a figure.
    """
    title, kind = TRACKERS[name]
    try:
        tracker = kind()
    except ImportError as error:
        raise missing_extra(f"the log for {title}", name, name) from error
    begun, lost = False, False

    def watch(record: dict[str, Any]) -> None:
        nonlocal begun, lost
        figures = {each: value for each, value in record.items() if isinstance(value, float)}
        if lost or not figures:
            return
        try:
            with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
                if not begun:
                    _begin(tracker, name, folder)
                    begun = True
                tracker.log(figures, record["step"])
        except Exception as error:
            if not begun:
                advice = tracker.advice or ()
                raise MetarepError(f"{title} cannot begin a run: {one_line(error)}", advice=advice) from error
            lost = True
            _warn(title, error)

    failed = True
    try:
        yield watch
        failed = False
    finally:
        if begun:
            try:
                with contextlib.redirect_stdout(sys.stderr):
                    tracker.end(failed=failed)
            except Exception as error:
                if not lost:
                    _warn(title, error)


def _begin(tracker: Tracker, name: str, folder: Path) -> None:
    """Begin a run of a tracker, or continue that of the training that is resumed, and remember which one it is."""
    path = folder / KNOWN
    try:
        known = parse_json(path.read_text()) if path.exists() else {}
        settings = parse_json((folder / SETTINGS).read_text()) if (folder / SETTINGS).exists() else {}
    except ValueError as error:
        raise MetarepError(f"{path} or {SETTINGS} is damaged ({one_line(error)})", advice=f"delete {path}") from error
    run = tracker.start(folder, known.get(name), _flat(settings))
    if known.get(name) != run:
        with replacing(path) as partial:
            partial.write_text(json.dumps(known | {name: run}) + "\n")


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings by names such as ``train.lr``.

    >>> _flat({"method": "protonet", "train": {"lr": 0.1}})
    {'method': 'protonet', 'train.lr': 0.1}
    """
    parts = {part: value if isinstance(value, dict) else {"": value} for part, value in settings.items()}
    return {f"{part}.{name}" if name else part: value for part, own in parts.items() for name, value in own.items()}


def _warn(title: str, error: Exception) -> None:
    text = f"{title} does not take the figures any more ({one_line(error)}); log.jsonl has all of them"
    warnings.warn(text, TrackerWarning, stacklevel=3)
