"""TrainSettings: everything about a training that is not the method's own."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from metarep.data.batches import BatchShape
from metarep.errors import MetarepError, one_of

SCHEDULES = ("one-cycle", "cosine", "constant", "linear")


@dataclass(frozen=True)
class TrainSettings:
    """How to train.

    Args:
        steps: optimiser steps.
        lr: largest learning rate.
        weight_decay: AdamW's decoupled weight decay; norm scales and biases are left out.
        schedule: of the learning rate: one-cycle rises for the first quarter and falls to nearly zero, cosine only
            falls, constant stays, linear falls in a straight line to zero.
        clip: largest norm of the gradient; 0 for no clipping.
        ways: classes in a batch (labelled) or in a task.
        shots: images a class in a batch (labelled) or support images a class.
        queries: query images a class (methods that eat tasks).
        tasks: tasks a batch (methods that eat tasks).
        images: images a batch, each seen as two views (methods that eat views).
        mine: where the classes of a batch come from: ``batch``, all alike; ``index``, every drawn class brings those
            that it is taken for, found in an index of all classes that is refreshed as training goes (methods that eat
            labelled images or tasks).
        mine_every: steps between refreshes of that index; until the first, batches are drawn as without.
        mine_near: classes that each drawn class brings.
        augment: a preset: none, drawings, photos, views-drawings, crops-drawings, views-32 or few-shot-84; the
            command line picks by the images if not told: one for views, which differ more, for methods that eat views
            and for labels=instances.
        validate_every: steps between validations.
        validation_tasks: tasks a validation, the same every time.
        validation_ways: ways of those tasks, where the method does not fix them.
        validation_shots: support images a class of those tasks; none for as many as the tasks have that are trained
            on, or 1 where batches are no tasks. 5 queries.
        stop_on_collapse: stop, instead of only saying so, when all images have become one point (methods that log
            their spread).
        seed: names the weights, batches and views of the run.
    """

    steps: int = 2000
    lr: float = 3e-3
    weight_decay: float = 1e-4
    schedule: Literal["one-cycle", "cosine", "constant", "linear"] = "one-cycle"
    clip: float = 0.0
    ways: int = 60
    shots: int = 1
    queries: int = 5
    tasks: int = 1
    images: int = 256
    mine: Literal["batch", "index"] = "batch"
    mine_every: int = 100
    mine_near: int = 3
    augment: str = "none"
    validate_every: int = 250
    validation_tasks: int = 500
    validation_ways: int = 20
    validation_shots: int | None = None
    stop_on_collapse: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("mine", self.mine, ("batch", "index"))
        positive = ("steps", "ways", "shots", "tasks", "mine_every", "mine_near", "validate_every")
        for name in (*positive, "validation_tasks", "validation_shots"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise MetarepError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name, least in (("queries", 0), ("clip", 0), ("weight_decay", 0), ("validation_ways", 2), ("images", 2)):
            if not getattr(self, name) >= least:
                raise MetarepError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.schedule not in SCHEDULES:
            raise MetarepError(f"schedule {self.schedule!r} is not one of {', '.join(SCHEDULES)}")
        if not 0 < self.lr < math.inf:
            raise MetarepError(f"lr must be above 0, not {self.lr}")

    @property
    def shape(self) -> BatchShape:
        """The shape of a batch, as a method takes it."""
        return BatchShape(self.ways, self.shots, self.queries, self.tasks, self.images)

    def lr_at(self, step: int) -> float:
        """The learning rate of step ``step``, counted from 0: a function of it alone, so that a resumed run agrees.

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
        """The settings by name, as a run folder stores them."""
        return asdict(self)


def _half_cosine(x: float) -> float:
    """From 1 at x = 0 to 0 at x = 1."""
    return (1 + math.cos(math.pi * x)) / 2
