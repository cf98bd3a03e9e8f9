"""train: the training loop of every method."""

import math
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn.utils import clip_grad_norm_

from metarep.data.augment import preset
from metarep.data.batches import Batch, batch_of, draw_batch
from metarep.data.split import Split
from metarep.errors import Advice, Advised, MetarepError
from metarep.experiments.evaluation import evaluate
from metarep.experiments.hard_classes import HardClasses
from metarep.experiments.run_folder import RunFolder
from metarep.experiments.training_state import pack, unpack
from metarep.experiments.validation import validation_tasks
from metarep.machine.device import keep_freed_memory
from metarep.machine.randomness import hand_over, seed_step, set_aside
from metarep.methods import Method
from metarep.methods.contrastive import COLLAPSED
from metarep.weights.settings import TrainSettings

LOG_EVERY = 20  # steps between readings of the loss; each reading is a host synchronisation

Watch = Callable[[dict[str, Any]], None]


class DivergedError(MetarepError):
    """The loss or a weight is NaN or infinite; the message names the step and the batch."""


class CollapsedError(MetarepError):
    """The representation has collapsed to one point, and ``stop_on_collapse`` is set."""


class CollapseWarning(Advised, UserWarning):
    """The representation has collapsed to one point; given once in a training."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a training.

    Args:
        step: the step whose weights were kept.
        accuracy: validation accuracy at this step in percent; None without validation tasks.
        seconds: time of training and validation in seconds, added up over all interruptions.
        validated_on: shape of the validation tasks, such as ``20-way 1-shot``; empty without validation tasks.
    """

    step: int
    accuracy: float | None
    seconds: float
    validated_on: str = ""


def train(
    method: Method[Any],
    split: Split,
    settings: TrainSettings | None = None,
    *,
    validation: Split | None = None,
    run: RunFolder | None = None,
    watch: Watch | None = None,
) -> Outcome:
    """Train ``method`` on ``split`` in place, and keep the weights with the best validation accuracy.

    Without validation the last weights are kept. A training that reads no true labels also keeps the last weights,
    because validation labels must not choose for it. Its validation is only logged. That holds for methods without
    labels and for classes that are clusters or instances.

    All random numbers come from one generator seeded by ``settings.seed``. Layers that draw from global generators,
    such as ``nn.Dropout``, find them seeded anew for each step. With a ``run`` folder the training is logged, and
    saved at every validation. Calling ``train`` again with the same folder resumes it. The result is the same, bit for
    bit, as without the interruption, on the same machine with the same number of threads.

    Args:
        method: the method, on the device to train on.
        split: images and labels to train on.
        settings: number of steps, learning rate, batches and so on; None for the defaults of the method.
        validation: images and labels of other classes, to choose among steps; never the test split.
        run: the folder for the log and the weights; None for neither.
        watch: called now and then with a dictionary of ``step``, ``steps``, ``loss``, ``lr``, ``images_per_second`` and
            ``seconds_left``; and after a validation with ``step``, ``steps``, ``accuracy`` and ``ci95`` in percent.

    Raises:
        DivergedError: the loss or a weight is NaN or infinite. The last saved state stays in the run folder.
        CollapsedError: the representation has collapsed to one point, and ``settings.stop_on_collapse`` is set.
        DataError: the split cannot give batches of the requested shape.
        MetarepError: another process is training in the run folder.

    Warns:
        CollapseWarning: the representation has collapsed to one point.
    """
    settings = settings or TrainSettings(**method.defaults)
    keep_freed_memory()
    loop = _Loop(method, split, settings, validation, run, watch or _unwatched)
    with run.held() if run else nullcontext(), set_aside(loop.device):
        loop.resume()
        while loop.step < settings.steps:
            loop.advance()
        return loop.finish()


class _Loop:
    """The state of one training, with the operations that change, save and restore it."""

    def __init__(
        self,
        method: Method,
        split: Split,
        settings: TrainSettings,
        validation: Split | None,
        run: RunFolder | None,
        watch: Watch,
    ) -> None:
        self.method, self.split, self.settings, self.validation = method, split, settings, validation
        self.run, self.watch = run, watch
        self.optimizer = method.optimizer(settings.lr, settings.weight_decay)
        self.device = method.learner.device
        self.generator = Generator().manual_seed(settings.seed)
        self.augment = preset(settings.augment)
        self.bank = split.bank.to(self.device)
        self.tasks = validation_tasks(validation, settings, method.learner, method.eats) if validation else None
        mining = settings.mine == "index"
        self.miner = HardClasses(method.eats, split.labels, settings.shape, settings.mine_near) if mining else None
        self.step, self.seconds = 0, 0.0
        self.best: dict[str, Tensor] = {}
        self.best_step, self.best_accuracy = 0, None
        self.recent: list[tuple[int, Batch, Tensor]] = []
        self.last_reading = (0, time.perf_counter())
        self.collapsed = False
        self._draw(Generator().manual_seed(settings.seed))  # fails now if the labels cannot give a batch
        hand_over(self.generator, method)

    def advance(self) -> None:
        """Train one step. Then read the loss, validate and save, each after its number of steps."""
        progress = self.step / self.settings.steps
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr_at(self.step)
        self.method.train()
        seed_step(self.settings.seed, self.step)
        batch = self._draw(self.generator)
        step = self.method.step(batch, progress=progress, generator=self.generator)
        self.optimizer.zero_grad(set_to_none=True)
        step.loss.backward()
        if self.settings.clip:
            clip_grad_norm_(self.method.parameters(), self.settings.clip)
        self.optimizer.step()
        self.method.after_step(step.carry, progress)
        self.step += 1
        self.recent.append((self.step, batch, step.loss.detach()))
        ending = self.step == self.settings.steps
        saving = ending or self.step % self.settings.validate_every == 0
        if saving or self.step % LOG_EVERY == 0:
            self._read(step.logs, len(batch.images))
        if saving:
            self._refuse_lost_weights()
            self._validate()
            self._save()

    def _draw(self, generator: Generator) -> Batch:
        """A batch; of classes that are hard to tell apart, if they are mined and the index of classes exists."""
        eats, settings = self.method.eats, self.settings
        if self.miner and self.step and self.step % settings.mine_every == 0:
            self.miner.refresh(self.method.learner, self.bank, turn=self.step // settings.mine_every)
        if self.miner and self.miner.ready:
            index = self.miner.draw(generator)
            return batch_of(eats, self.bank, index, self.augment, generator)
        return draw_batch(eats, self.bank, self.split.labels, settings.shape, self.augment, generator)

    def finish(self) -> Outcome:
        """Load the best weights, save the model, and return the outcome."""
        if self.best:
            self.method.load_state_dict(self.best)
        self.method.eval()
        if self.run:
            self.run.save_model(self.method)
        shape = f"{self.tasks.ways}-way {self.tasks.shots}-shot" if self.tasks else ""
        return Outcome(self.best_step or self.step, self.best_accuracy, self.seconds, shape)

    def _read(self, logs: dict[str, Tensor], images: int) -> None:
        """Read and log the losses since the last reading. Only this needs a host synchronisation."""
        losses = torch.stack([loss for _, _, loss in self.recent]).tolist()
        for (number, batch, _), loss in zip(self.recent, losses, strict=True):
            if not math.isfinite(loss):
                raise self._diverged(f"the loss is {loss} at step {number} (batch {batch.digest})")
        self.last_batch = self.recent[-1][1]
        since, then = self.last_reading
        now = time.perf_counter()
        rate = (self.step - since) / (now - then)
        self.seconds += now - then
        self.last_reading = (self.step, now)
        self.recent.clear()
        record = {
            "step": self.step,
            "loss": sum(losses) / len(losses),
            **{name: float(value) for name, value in logs.items()},
            "lr": self.settings.lr_at(self.step - 1),
            "images_per_second": rate * images,
            "seconds_left": (self.settings.steps - self.step) / rate,
        }
        self._report(record)
        if record.get("spread", 1.0) < COLLAPSED and not self.collapsed:
            self._warn_of_collapse(record["spread"])

    def _warn_of_collapse(self, spread: float) -> None:
        self.collapsed = True
        what = (
            f"the representation has collapsed to one point at step {self.step}: the spread of normalised projections "
            f"is {spread:.3f} of 1"
        )
        advice = Advice("try a smaller {lr}, more {images}, or a stronger {augment}", lr=..., images=..., augment=...)
        if self.settings.stop_on_collapse:
            raise CollapsedError(what + self._kept(), advice=advice)
        stop = Advice("end such a training with {stop_on_collapse}", stop_on_collapse=True)
        warnings.warn(CollapseWarning(what, advice=(advice, stop)), stacklevel=2)

    def _kept(self) -> str:
        return f"; the last good state is in {self.run.path}" if self.run else ""

    def _diverged(self, what: str) -> DivergedError:
        parts = {"lr": ..., "clip": 1.0, "precision": "float32"}
        return DivergedError(
            f"{what}{self._kept()}", advice=Advice("try a smaller {lr}, {clip}, or {precision}", **parts)
        )

    def _refuse_lost_weights(self) -> None:
        """Raise if a weight is NaN or infinite: a finite loss can have a gradient that is not."""
        if not all(bool(value.isfinite().all()) for value in self.method.state_dict().values()):
            raise self._diverged(f"weights are NaN or infinite after step {self.step} (batch {self.last_batch.digest})")

    def _validate(self) -> None:
        if self.tasks is None or self.validation is None:
            return
        report = evaluate(self.method.learner, self.validation.bank, self.tasks)
        self._report({"step": self.step, "accuracy": report.accuracy, "ci95": report.ci95})
        if self.label_free:
            self.best_step, self.best_accuracy = (
                self.step,
                report.accuracy,
            )  # the last step: validation labels must not choose
        elif self.best_accuracy is None or report.accuracy > self.best_accuracy:
            self.best_step, self.best_accuracy = self.step, report.accuracy
            self.best = {name: value.detach().clone() for name, value in self.method.state_dict().items()}

    @property
    def label_free(self) -> bool:
        """Whether no true label of a training image is read. Then no label may choose among the weights either."""
        return self.method.eats.label_free or self.split.labels.kind != "true"

    def _report(self, record: dict[str, Any]) -> None:
        self.watch({"steps": self.settings.steps, **record})
        if self.run:
            self.run.log(record)

    def _save(self) -> None:
        now = time.perf_counter()
        self.seconds += now - self.last_reading[1]
        self.last_reading = (self.step, now)
        if not self.run:
            return
        tensors = pack(self.method, self.best, self.optimizer, self.generator)
        if self.miner and self.miner.ready:
            tensors["miner.near"] = self.miner.near
        header = {
            "step": self.step,
            "seconds": self.seconds,
            "best_step": self.best_step,
            "best_accuracy": self.best_accuracy,
        }
        self.run.save_state(tensors, header)
        if self.best_step == self.step or self.tasks is None:
            self.run.save_model(self.method)

    def resume(self) -> None:
        """Restore the last state that was saved in the run folder, if there is one."""
        saved = self.run.load_state() if self.run else None
        if saved is None:
            return
        tensors, header = saved
        self.step, self.seconds = header["step"], header["seconds"]
        self.best_step, self.best_accuracy = header["best_step"], header["best_accuracy"]
        self.best = unpack(tensors, self.method, self.optimizer, self.generator)
        if self.miner and "miner.near" in tensors:
            self.miner.near = tensors["miner.near"]
        self.last_reading = (self.step, time.perf_counter())


def _unwatched(_: dict[str, Any]) -> None:
    """Ignore a progress record: the default of ``watch``."""
