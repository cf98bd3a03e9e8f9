"""Readings: the losses of a training, read now and then, logged, and checked for divergence and collapse."""

import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metarep.data.batch import Batch
from metarep.errors import Advice, Advised, MetarepError
from metarep.experiments.run_folder import RunFolder
from metarep.experiments.training_state import TrainingState
from metarep.machine.ranks import any_rank, average
from metarep.methods.contrastive import COLLAPSED
from metarep.weights.settings import TrainSettings

Watch = Callable[[dict[str, Any]], None]


class DivergedError(MetarepError):
    """The loss or a weight is NaN or infinite; the message names the step and the batch."""


class CollapsedError(MetarepError):
    """The representation has collapsed to one point, and ``stop_on_collapse`` is set."""


class CollapseWarning(Advised, UserWarning):
    """The representation has collapsed to one point; given once in a training."""


class Readings:
    """The losses since the last reading, and the time since then.

    Each reading is a host synchronisation, so it happens only every few steps.

    Args:
        state: the state of the training; a reading adds to its ``seconds``.
        settings: settings of the training.
        run: the run folder, whose log gets a record for each reading; None for no log.
        watch: called with each record.
        kept: the end of error messages, which says where the last good state is.
    """

    def __init__(
        self, state: TrainingState, settings: TrainSettings, run: RunFolder | None, watch: Watch, kept: str = ""
    ) -> None:
        self.state, self.settings, self.run, self.watch, self.kept = state, settings, run, watch, kept
        self.recent: list[tuple[int, Batch, Tensor]] = []
        self.restart()
        self.collapsed = False

    def restart(self) -> None:
        """Measure the time and the steps from now on."""
        self.since, self.then = self.state.step, time.perf_counter()

    def add(self, batch: Batch, loss: Tensor) -> None:
        """Add the loss of the step that was just done."""
        self.recent.append((self.state.step, batch, loss.detach()))

    def count_time(self) -> float:
        """Add the time since the last call to the seconds of the training, and return it."""
        now = time.perf_counter()
        passed, self.then = now - self.then, now
        self.state.seconds += passed
        return passed

    def read(self, logs: dict[str, Tensor], images: int) -> None:
        """Read and log the losses since the last reading.

        Args:
            logs: scalars of the last step, for the log.
            images: number of images in a step.

        Raises:
            DivergedError: a loss is NaN or infinite.
            CollapsedError: the representation has collapsed, and the settings say to stop then.

        Warns:
            CollapseWarning: the representation has collapsed; only once.
        """
        means = torch.stack([loss for _, _, loss in self.recent])
        figures = {name: value.detach().float().reshape(()).clone() for name, value in logs.items()}
        average([means, *figures.values()])  # so that all ranks read, and refuse, the same values
        losses = means.tolist()
        for (number, batch, _), loss in zip(self.recent, losses, strict=True):
            if not math.isfinite(loss):
                raise self._diverged(f"the loss is {loss} at step {number} (batch {batch.digest})")
        self.last_batch = self.recent[-1][1]
        self.recent.clear()
        step = self.state.step
        rate = (step - self.since) / self.count_time()
        self.since = step
        record = {
            "step": step,
            "loss": sum(losses) / len(losses),
            **{name: float(value) for name, value in figures.items()},
            "lr": self.settings.lr_at(step - 1),
            "images_per_second": rate * images,
            "seconds_left": (self.settings.steps - step) / rate,
        }
        self.report(record)
        if record.get("spread", 1.0) < COLLAPSED and not self.collapsed:
            self._warn_of_collapse(record["spread"])

    def report(self, record: dict[str, Any]) -> None:
        """Log a record, and pass it on to whoever watches the training."""
        self.watch({"steps": self.settings.steps, **record})
        if self.run:
            self.run.log(record)

    def refuse_lost_weights(self) -> None:
        """Raise if a weight is NaN or infinite: a finite loss can have a gradient that is not.

        Raises:
            DivergedError: one is.
        """
        lost = not all(bool(value.isfinite().all()) for value in self.state.method.state_dict().values())
        if any_rank(lost):
            raise self._diverged(
                f"weights are NaN or infinite after step {self.state.step} (batch {self.last_batch.digest})"
            )

    def _warn_of_collapse(self, spread: float) -> None:
        self.collapsed = True
        what = (
            f"the representation has collapsed to one point at step {self.state.step}: the spread of normalised "
            f"projections is {spread:.3f} of 1"
        )
        advice = Advice("try a smaller {lr}, more {images}, or a stronger {augment}", lr=..., images=..., augment=...)
        if self.settings.stop_on_collapse:
            raise CollapsedError(what + self.kept, advice=advice)
        stop = Advice("end such a training with {stop_on_collapse}", stop_on_collapse=True)
        warnings.warn(CollapseWarning(what, advice=(advice, stop)), stacklevel=2)

    def _diverged(self, what: str) -> DivergedError:
        parts = {"lr": ..., "clip": 1.0, "precision": "float32"}
        return DivergedError(f"{what}{self.kept}", advice=Advice("try a smaller {lr}, {clip}, or {precision}", **parts))
