"""train: one loop for every method."""

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

LOG_EVERY = 20  # steps between readings of the loss; on a GPU each is a wait

Watch = Callable[[dict[str, Any]], None]


class DivergedError(MetarepError):
    """The loss stopped being a number; the message names the step and the batch."""


class CollapsedError(MetarepError):
    """All images have become one point, and the training was asked to stop then."""


class CollapseWarning(Advised, UserWarning):
    """All images have become one point; said once a training."""


@dataclass(frozen=True)
class Outcome:
    """How a training went.

    Args:
        step: the step whose weights were kept.
        accuracy: its validation accuracy in percent; None where there were no validation tasks.
        seconds: spent in training, validation included, over all sittings.
        validated_on: the shape of the validation tasks, as in ``20-way 1-shot``; nothing where there were none.
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
    """Train ``method`` on ``split``; it then holds the weights that were best on validation, or else the last.

    A training that reads no true label, for its method never does or because its classes are clusters or instances,
    always keeps the last: validation labels would choose for it. Its validation is only logged.

    Everything random comes from one generator seeded by ``settings.seed``; layers that draw from global ones, as
    ``nn.Dropout`` does, find them seeded anew for each step. With a ``run`` folder the training is logged and saved at
    every validation, and calling this again with the same folder goes on from there: the end is the same, bit for bit,
    as without the interruption (on the same machine with the same number of threads).

    Args:
        method: on the device to train on.
        split: images and labels to train on.
        settings: how long, how fast, on what batches.
        validation: other classes, for choosing among steps; never the test split.
        run: where to log and save.
        watch: called with a dictionary now and then: ``step``, ``steps``, ``loss``, ``lr``, ``images_per_second``,
            ``seconds_left``; after a validation ``accuracy`` and ``ci95``.

    Raises:
        DivergedError: the loss is not finite. The last good state stays in the run folder.
        CollapsedError: all images have become one point, and ``settings.stop_on_collapse`` is set.
        DataError: the split cannot give the batches asked for.
        MetarepError: another process is training in the run folder.

    Warns:
        CollapseWarning: all images have become one point.
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
    """The state of one training: what is saved is what is here."""

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
        self._draw(Generator().manual_seed(settings.seed))  # or labels that cannot give a batch are known too late
        hand_over(self.generator, method)

    def advance(self) -> None:
        """One step; then, where it is time, a reading of the loss, a validation, a save."""
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
        """A batch; of classes that are hard to tell apart, where they are mined and known by now."""
        eats, settings = self.method.eats, self.settings
        if self.miner and self.step and self.step % settings.mine_every == 0:
            self.miner.refresh(self.method.learner, self.bank, turn=self.step // settings.mine_every)
        if self.miner and self.miner.ready:
            index = self.miner.draw(generator)
            return batch_of(eats, self.bank, index, self.augment, generator)
        return draw_batch(eats, self.bank, self.split.labels, settings.shape, self.augment, generator)

    def finish(self) -> Outcome:
        if self.best:
            self.method.load_state_dict(self.best)
        self.method.eval()
        if self.run:
            self.run.save_model(self.method)
        shape = f"{self.tasks.ways}-way {self.tasks.shots}-shot" if self.tasks else ""
        return Outcome(self.best_step or self.step, self.best_accuracy, self.seconds, shape)

    def _read(self, logs: dict[str, Tensor], images: int) -> None:
        """Read the losses since the last reading: the one place where the processor waits for the device."""
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
        self._tell(record)
        if record.get("spread", 1.0) < COLLAPSED and not self.collapsed:
            self._say_collapsed(record["spread"])

    def _say_collapsed(self, spread: float) -> None:
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
        """A finite loss can have a gradient that is not; such weights are neither measured nor saved."""
        if not all(bool(value.isfinite().all()) for value in self.method.state_dict().values()):
            raise self._diverged(
                f"weights are no longer numbers after step {self.step} (batch {self.last_batch.digest})"
            )

    def _validate(self) -> None:
        if self.tasks is None or self.validation is None:
            return
        report = evaluate(self.method.learner, self.validation.bank, self.tasks)
        self._tell({"step": self.step, "accuracy": report.accuracy, "ci95": report.ci95})
        if self.label_free:
            self.best_step, self.best_accuracy = self.step, report.accuracy  # the last, whatever labels say
        elif self.best_accuracy is None or report.accuracy > self.best_accuracy:
            self.best_step, self.best_accuracy = self.step, report.accuracy
            self.best = {name: value.detach().clone() for name, value in self.method.state_dict().items()}

    @property
    def label_free(self) -> bool:
        """No true label of a training image is read, so none of another class must choose among weights either."""
        return self.method.eats.label_free or self.split.labels.kind != "true"

    def _tell(self, record: dict[str, Any]) -> None:
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
        """Take up the run folder's last saved state, if there is one."""
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
    """Nobody is watching."""
