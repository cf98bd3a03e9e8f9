"""train: the training loop of every method."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn.utils import clip_grad_norm_

from metarep.data.augment import preset
from metarep.data.banks.read_ahead import placed, read_ahead
from metarep.data.batch import Batch, TaskBatch
from metarep.data.batches import batch_of, draw_batch
from metarep.data.images import ImageBank
from metarep.data.split import Split
from metarep.data.strata import Strata
from metarep.encoders import drop_feature_statistics, keep_feature_statistics
from metarep.encoders.freezing import scale_rates
from metarep.encoders.normalisation import average_running, synchronised
from metarep.experiments.hard_classes import HardClasses
from metarep.experiments.measurement.evaluation import evaluate
from metarep.experiments.readings import Readings, Watch
from metarep.experiments.run_folder import RunFolder
from metarep.experiments.saving import Saving
from metarep.experiments.training_state import TrainingState
from metarep.experiments.validation import validation_tasks
from metarep.machine.deterministic import deterministic
from metarep.machine.device import keep_freed_memory
from metarep.machine.randomness import hand_over, seed_step, set_aside
from metarep.machine.ranks import any_rank, average_gradients, rank, ranks
from metarep.machine.stop import Stop
from metarep.methods.method import Method, Step, joined_carry
from metarep.weights.settings import TrainSettings

LOG_EVERY = 20  # steps between readings of the loss


@dataclass(frozen=True)
class Outcome:
    """The outcome of a training.

    Args:
        step: the step whose weights were kept.
        accuracy: validation accuracy at this step in percent; None without validation tasks.
        seconds: time of training and validation in seconds, added up over all interruptions.
        validated_on: shape of the validation tasks, such as ``20-way 1-shot``; empty without validation tasks.

    >>> max([Outcome(500, 70.2, 40.0), Outcome(750, 71.5, 60.0)], key=lambda outcome: outcome.accuracy).step
    750
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

    Inside :func:`metarep.machine.ranks.joined` all processes train together: each computes its part of every batch, and
    gradients are averaged. The batches, and the weights but for rounding, are those of a single process.

    Without validation the last weights are kept. So they are if training reads no true labels: with a method without
    labels, or with clusters or instances as classes. Validation is then only logged, because no label may choose.

    All random numbers come from one generator seeded by ``settings.seed``. Global generators, as ``nn.Dropout`` uses
    them, are seeded anew for each step. With a ``run`` folder the training is logged, and saved at every validation or
    every ``settings.save_every`` steps. Calling ``train`` again with the same folder resumes it. The result is the same
    bit for bit as without the interruption, on the same machine with as many threads and processes. With
    ``settings.deterministic`` the number of threads may differ.

    In the main thread SIGTERM and SIGINT (Ctrl-C) end a training with a ``run`` folder only after its state was saved:
    after the step that is being computed, or at once during a validation, which is then done when it is resumed.

    Args:
        method: the method, on the device to train on.
        split: images and labels to train on.
        settings: number of steps, learning rate, batches and so on; None for the defaults of the method.
        validation: images and labels of other classes, to choose among steps; never the test split.
        run: the folder for the log and the weights; None for neither.
        watch: called now and then with ``step``, ``steps``, ``loss``, ``lr``, ``images_per_second`` and
            ``seconds_left``; after a validation with ``step``, ``steps``, ``accuracy`` and ``ci95`` in percent; for a
            bank of several shards also once with ``step``, ``steps`` and ``images``, which says where images are kept.

    Raises:
        DivergedError: the loss or a weight is NaN or infinite. The last saved state stays in the run folder.
        CollapsedError: the representation has collapsed to one point, and ``settings.stop_on_collapse`` is set.
        DataError: the split cannot give batches of the requested shape.
        MetarepError: another process is training in the run folder, or it cannot be written. The saved state stays.
        KeyboardInterrupt, SystemExit: a signal has ended the training (SIGINT, SIGTERM), and its state was saved.

    Warns:
        CollapseWarning: the representation has collapsed to one point.
        DamagedStateWarning: the newest state in the run folder is damaged, so the one before it is used.

    >>> from metarep import Encoder, Labels, Preprocess, ProtoNet
    >>> classes, noise = torch.arange(200) // 10, torch.randint(256, (200,), generator=Generator().manual_seed(0))
    >>> images = torch.stack([classes * 12, noise], dim=1).view(200, 1, 1, 2)  # the second pixel is noise
    >>> split = Split(ImageBank(images.to(torch.uint8)), Labels.of(classes.tolist()), "toy/train")
    >>> body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 1))
    >>> _ = torch.nn.init.ones_(body[1].weight)  # both pixels count alike before the training
    >>> method = ProtoNet(Encoder(body, Preprocess((1, 2), 1, (0.0,), (1.0,))))
    >>> outcome = train(method, split, TrainSettings(steps=30, ways=5, queries=5, lr=0.1))
    >>> outcome.step, bool(body[1].weight[0, 0] > 3 * body[1].weight[0, 1].abs())  # it has learned to ignore the noise
    (30, True)
    """
    settings = settings or TrainSettings(**method.defaults)
    keep_freed_memory()
    loop = _Loop(method, split, settings, validation, run, watch or (lambda _: None))
    with (
        deterministic(settings.deterministic, loop.device),
        run.held() if run and rank() == 0 else nullcontext(),
        set_aside(loop.device),
        loop.stop,
    ):
        loop.resume()
        while loop.state.step < settings.steps:
            loop.advance()
        return loop.finish()


class _Loop:
    """The training loop: its data, its state and its steps."""

    def __init__(
        self,
        method: Method,
        split: Split,
        settings: TrainSettings,
        validation: Split | None,
        run: RunFolder | None,
        watch: Watch,
    ) -> None:
        split, parts = split.local(settings.local_shards), settings.local_shards
        self.strata = Strata.of(split.labels, parts) if parts > 1 else None
        self.method, self.split, self.settings, self.validation = method, split, settings, validation
        self.device = method.learner.device
        self.augment = preset(settings.augment)
        self.bank, where = placed(split.bank, self.device)
        mining = settings.mine == "index"
        optimizer = method.optimizer(settings.lr, settings.weight_decay)
        scale_rates(optimizer, method.learner.encoder, settings.layer_decay)
        self.state = TrainingState(
            method,
            optimizer,
            Generator().manual_seed(settings.seed),
            HardClasses(method.eats, split.labels, settings.shape, settings.mine_near) if mining else None,
        )
        self.stop = Stop(active=run is not None)
        self.saving = Saving(run, self.state, settings)
        kept = f"; the last good state is in {run.path}" if run else ""
        run, watch = (run, watch) if rank() == 0 else (None, lambda _: None)
        self.readings = Readings(self.state, settings, run, watch, kept)
        self._draw(Generator().manual_seed(settings.seed))  # fails now if the labels cannot give a batch
        self.tasks = validation_tasks(validation, settings, method.learner, method.eats) if validation else None
        hand_over(self.state.generator, method)
        drop_feature_statistics(method.learner.encoder)
        if where:
            watch({"step": 0, "steps": settings.steps, "images": where})

    def resume(self) -> None:
        """Restore the last state that was saved in the run folder, if there is one."""
        self.saving.resume()
        self.readings.restart()
        if self._validation_due:  # a signal has stopped it
            self._validate_and_save()

    def advance(self) -> None:
        """Train one step. Then read the loss, validate and save, each after its number of steps."""
        state, settings = self.state, self.settings
        progress = state.step / settings.steps
        for group in state.optimizer.param_groups:
            group["lr"] = settings.lr_at(state.step) * group.get("scale", 1.0)
        self.method.train()
        seed_step(settings.seed, state.step)
        state.optimizer.zero_grad(set_to_none=True)
        done = [self._add_gradient(progress) for _ in range(settings.accumulate)]
        batches, steps, losses = zip(*done, strict=True)
        average_gradients(self.method)
        if settings.clip:
            clip_grad_norm_(self.method.parameters(), settings.clip)
        state.optimizer.step()
        self.method.after_step(joined_carry(steps), progress)
        state.step += 1
        self.readings.add(batches[-1], torch.stack(losses).mean())
        if self._evaluation_due:
            average_running(self.method)
        stopping = self._stopping()
        due = stopping or self.saving.due or self._evaluation_due
        if due or state.step % LOG_EVERY == 0:
            self.readings.read(steps[-1].logs, sum(len(batch.rows) for batch in batches))
        if due:
            self.readings.refuse_lost_weights()
            self._validate_and_save(stopping=stopping)

    def _validate_and_save(self, *, stopping: bool = False) -> None:
        """Validate and save, if they are due; end the training after a signal."""
        state = self.state
        if self._validation_due and not stopping:
            self._validate()
            stopping = any_rank(self.stop.requested)
        saving = stopping or self.saving.due
        if saving:
            self.readings.count_time()
            self.saving.save()
        if state.best_step == state.step or (saving and self.tasks is None):
            self.saving.save_model()
        if stopping:
            self.stop.end(self.saving.kept, elsewhere=True)

    def _stopping(self) -> bool:
        """Whether any process has received a signal. On GPUs the processes exchange this only every few steps."""
        skipped = ranks() > 1 and self.device.type == "cuda" and self.state.step % LOG_EVERY != 0
        return not skipped and any_rank(self.stop.requested)

    @property
    def _evaluation_due(self) -> bool:
        """Whether the weights after this step are validated, if there are validation tasks."""
        return self.state.step == self.settings.steps or self.state.step % self.settings.validate_every == 0

    @property
    def _validation_due(self) -> bool:
        """Whether a validation is due at this step and was not done yet."""
        return self.tasks is not None and self._evaluation_due and self.state.validated < self.state.step

    def _add_gradient(self, progress: float) -> tuple[Batch, Step, Tensor]:
        """Draw a batch and add its gradient to that of the step. Returns the batch, the step and the detached loss."""
        state, settings = self.state, self.settings
        batch = self._draw(state.generator)
        if ranks() > 1:
            one_by_one = isinstance(batch, TaskBatch) and not self.method.spans_batch
            hand_over(state.generator, self.method, None if one_by_one else (batch.own, len(batch.rows)))
        with synchronised(settings.statistics == "synchronised"):
            step = self.method.step(batch, progress=progress, generator=state.generator)
        loss = step.loss * batch.weight
        (loss / settings.accumulate).backward()
        return batch, step, loss.detach()

    def _draw(self, generator: Generator) -> Batch:
        """Draw a batch: of similar classes if classes are mined and their index exists, otherwise of any classes."""
        eats, settings, miner, step = self.method.eats, self.settings, self.state.miner, self.state.step
        spans = self.method.spans_batch
        if miner and step and step % settings.mine_every == 0:
            miner.refresh(self.method.learner, self.bank, turn=step // settings.mine_every)
        if miner and miner.ready:
            return batch_of(eats, self.bank, miner.draw(generator), self.augment, generator, spans=spans)

        def draw(bank: ImageBank, generator: Generator) -> Batch:
            how: dict[str, Any] = {"spans": spans, "within": settings.mine == "superclass", "strata": self.strata}
            return draw_batch(eats, bank, self.split.labels, settings.shape, self.augment, generator, **how)

        batch = draw(self.bank, generator)
        read_ahead(self.bank, draw, generator)
        return batch

    def finish(self) -> Outcome:
        """Load the best weights, save the model, and return the outcome."""
        state = self.state
        if state.best:
            self.method.load_state_dict(state.best)
        self.method.eval()
        self.method.learner.merge_updates()
        keep_feature_statistics(self.method.learner.encoder, self.split, self.augment if self.label_free else None)
        self.saving.save_model()
        self.saving.save_card()
        self.stop.end(self.saving.kept)  # if a signal came in the last step
        shape = f"{self.tasks.ways}-way {self.tasks.shots}-shot" if self.tasks else ""
        return Outcome(state.best_step or state.step, state.best_accuracy, state.seconds, shape)

    def _validate(self) -> None:
        if self.tasks is None or self.validation is None:
            return
        state, learner, bank, tasks = self.state, self.method.learner, self.validation.bank, self.tasks
        if ranks() > 1:  # each measures a part of the tasks, so none may stop alone
            report = evaluate(learner, bank, tasks)
        else:
            report = self.stop.unless_requested(lambda: evaluate(learner, bank, tasks))
        if report is None:  # a signal was received; the resumed training repeats the validation
            return
        state.validated = state.step
        self.readings.report({"step": state.step, "accuracy": report.accuracy, "ci95": report.ci95})
        if self.label_free:  # the last step is kept: validation labels must not choose
            state.best_step, state.best_accuracy = state.step, report.accuracy
        elif state.best_accuracy is None or report.accuracy > state.best_accuracy:
            state.keep_best(report.accuracy)

    @property
    def label_free(self) -> bool:
        """Whether training reads no true labels. Then validation labels must not choose among the weights either."""
        return self.method.eats.label_free or self.split.labels.kind != "true"
