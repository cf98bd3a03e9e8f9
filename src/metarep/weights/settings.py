"""TrainSettings: the settings of a training that do not belong to a method."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from metarep.data.batch import BatchShape
from metarep.errors import MetarepError, one_of

SCHEDULES = ("one-cycle", "cosine", "constant", "linear")


@dataclass(frozen=True)
class TrainSettings:
    """The settings of a training: number of steps, learning rate, batches and validation.

    Args:
        steps: number of optimiser steps.
        lr: largest learning rate.
        weight_decay: AdamW's decoupled weight decay; norm scales and biases are left out.
        schedule: of the learning rate: one-cycle rises in the first quarter and then falls to nearly zero, cosine only
            falls, constant stays, linear falls in a straight line to zero.
        clip: largest norm of the gradient; 0 for no clipping.
        ways: classes in a batch of labelled images, or in a task.
        shots: images of each class in a batch of labelled images, or support images of each class in a task.
        queries: query images of each class (methods that eat tasks).
        tasks: tasks in a batch (methods that eat tasks).
        images: images in a batch, each as two views (methods that eat views).
        layer_decay: what the learning rate of each layer of the encoder is multiplied by, relative to the layer behind
            it; 1 for the same rate everywhere. For pretrained encoders 0.65 to 0.9 is usual.
        mine: how the classes of a batch are drawn: ``batch`` draws all at random; ``index`` adds to every drawn class
            its nearest classes, from an index of all classes that is refreshed during the training; ``superclass``
            takes the classes of one superclass, and of further ones only if it has too few, where names are such as
            ``alphabet/character`` (methods that eat labelled images or tasks).
        mine_every: steps between refreshes of that index; until the first refresh all classes are drawn at random.
        mine_near: number of nearest classes that are added to each drawn class.
        accumulate: batches in a step; the gradient of a step is their mean. Each has the shape that is set, so a step
            sees more images in the same memory.
        local_shards: the number of parts into which the classes are divided, of which each process holds equally many;
            1 to draw from all classes. A batch has equally many images, classes or tasks of each part, and a process
            reads no image of another's parts.
        statistics: batch statistics of norm layers on several processes: ``synchronised``, those of the whole batch; or
            ``per-process``, as if each part of the batch was normalised on its own.
        augment: a preset: none, drawings, photos, photos-32, views-drawings, crops-drawings, views-32 or few-shot-84;
            the command line chooses one that suits the images. For methods that eat views, and for labels=instances,
            it chooses one for views, which differ more.
        validate_every: steps between validations.
        save_every: steps between saved states, from which an interrupted run goes on; none to save with each
            validation. It does not change the result.
        validation_tasks: tasks of a validation, the same every time.
        validation_ways: ways of those tasks, unless the method fixes them.
        validation_shots: support images of each class in those tasks; none for the number of shots that is trained on,
            or 1 if batches are not tasks. They have 5 queries.
        stop_on_collapse: end the training, instead of only warning, when the representation has collapsed to one point
            (methods that log their spread).
        deterministic: compute so that the result does not depend on the number of threads, bit for bit. Each operation
            then runs on one thread; tasks of maml and reptile are still divided among threads.
        seed: seed of the weights, batches and views of the run.

    Raises:
        MetarepError: a value outside of its range.

    >>> TrainSettings(steps=0)
    Traceback (most recent call last):
    metarep.errors.MetarepError: steps must be at least 1, not 0
    """

    steps: int = 2000
    lr: float = 3e-3
    weight_decay: float = 1e-4
    schedule: Literal["one-cycle", "cosine", "constant", "linear"] = "one-cycle"
    clip: float = 0.0
    layer_decay: float = 1.0
    ways: int = 60
    shots: int = 1
    queries: int = 5
    tasks: int = 1
    images: int = 256
    mine: Literal["batch", "index", "superclass"] = "batch"
    mine_every: int = 100
    mine_near: int = 3
    accumulate: int = 1
    local_shards: int = 1
    statistics: Literal["synchronised", "per-process"] = "synchronised"
    augment: str = "none"
    validate_every: int = 250
    save_every: int | None = None
    validation_tasks: int = 500
    validation_ways: int = 20
    validation_shots: int | None = None
    stop_on_collapse: bool = False
    deterministic: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("mine", self.mine, ("batch", "index", "superclass"))
        one_of("statistics", self.statistics, ("synchronised", "per-process"))
        positive = ("steps", "shots", "tasks", "mine_every", "mine_near", "validate_every", "accumulate")
        for name in (*positive, "local_shards", "save_every", "validation_tasks", "validation_shots"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise MetarepError(f"{name} must be at least 1, not {getattr(self, name)}")
        least_of = {"queries": 0, "clip": 0, "weight_decay": 0, "ways": 2, "validation_ways": 2, "images": 2}
        for name, least in least_of.items():
            if not getattr(self, name) >= least:
                raise MetarepError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.mine != "batch" and self.local_shards > 1:
            raise MetarepError(
                f"mine={self.mine} chooses among all classes, and with local_shards no process has all; take mine=batch"
            )
        if self.schedule not in SCHEDULES:
            raise MetarepError(f"schedule {self.schedule!r} is not one of {', '.join(SCHEDULES)}")
        if not 0 < self.layer_decay <= 1:
            raise MetarepError(f"layer_decay must be above 0 and at most 1, not {self.layer_decay}")
        if not 0 < self.lr < math.inf:
            raise MetarepError(f"lr must be a finite number above 0, not {self.lr}")

    @property
    def shape(self) -> BatchShape:
        """The shape of a batch.

        >>> TrainSettings(ways=5, shots=1).shape.ways
        5
        """
        return BatchShape(self.ways, self.shots, self.queries, self.tasks, self.images)

    def lr_at(self, step: int) -> float:
        """The learning rate of a step.

        It depends on the number of the step alone, so a resumed run has the same rates.

        Args:
            step: number of the step, counted from 0.

        >>> [round(TrainSettings(steps=100, lr=1.0).lr_at(step), 3) for step in (0, 25, 99)]
        [0.04, 1.0, 0.001]
        """
        progress = step / self.steps
        if self.schedule == "constant":
            return self.lr
        if self.schedule == "linear":
            return self.lr * (1 - progress)
        if self.schedule == "one-cycle" and progress < 0.25:
            return self.lr * (0.04 + 0.96 * _half_cosine(1 - progress / 0.25))
        rest = (progress - 0.25) / 0.75 if self.schedule == "one-cycle" else progress
        return self.lr * (1e-4 + (1 - 1e-4) * _half_cosine(rest))

    def as_dict(self) -> dict[str, Any]:
        """The settings by name, as a run folder stores them.

        >>> TrainSettings(steps=100).as_dict()["steps"]
        100
        """
        return asdict(self)


def _half_cosine(x: float) -> float:
    """Half a period of a cosine, which falls from 1 at x = 0 to 0 at x = 1 (for x from 1 to 0 it rises)."""
    return (1 + math.cos(math.pi * x)) / 2
