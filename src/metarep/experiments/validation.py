"""Validation tasks: what a training chooses its weights by. Nothing is left out without a word."""

import warnings

from torch import Generator

from metarep.data.batches import Batch, TaskBatch
from metarep.data.split import Split
from metarep.data.tasks import SmallClassWarning, TaskIndex, draw_tasks, warn_of_small_classes
from metarep.learners import Learner
from metarep.weights.settings import TrainSettings

QUERIES = 5  # a class, or as many as every class can give


def validation_shots(settings: TrainSettings, eats: type[Batch]) -> int:
    """Support images a class: as asked, or as many as the tasks have that are trained on."""
    return settings.validation_shots or (settings.shots if eats is TaskBatch else 1)


def validation_tasks(
    validation: Split, settings: TrainSettings, learner: Learner, eats: type[Batch]
) -> TaskIndex | None:
    """The tasks of every validation of a training; None where these classes can give none.

    Classes too small for them are left out, and where too few are left the tasks have fewer shots.

    Args:
        validation: classes that are not trained on.
        settings: how many tasks, of how many ways and shots; their seed.
        learner: whose ways it has to be, where they are fixed.
        eats: what the method eats.

    Warns:
        SmallClassWarning: classes are left out, the tasks have fewer shots, or there are none.
    """
    labels, least = validation.labels, learner.ways or 2
    asked = validation_shots(settings, eats)
    shots = next((shots for shots in range(asked, 0, -1) if int(labels.can_give(shots, 1).sum()) >= least), None)
    if shots is None:
        text = (
            f"nothing to validate on, so the last weights are kept: {least}-way 1-shot tasks need {least} classes of "
        )
        _warn(f"{text}at least 2 images, and {validation.name} has {int(labels.can_give(1, 1).sum())}")
        return None
    if shots < asked:
        _warn(f"validated on {shots}-shot tasks, not {asked}-shot: the classes of {validation.name} are too small")
    usable = labels.can_give(shots, 1)
    warn_of_small_classes(labels, usable, f"validation on {validation.name}", shots, 1)
    queries = next(n for n in range(QUERIES, 0, -1) if (labels.can_give(shots, n) == usable).all())
    return draw_tasks(
        labels,
        settings.validation_tasks,
        ways=min(learner.ways or settings.validation_ways, int(usable.sum())),
        shots=shots,
        queries=queries,
        generator=Generator().manual_seed(settings.seed),
    )


def _warn(text: str) -> None:
    warnings.warn(text, SmallClassWarning, stacklevel=3)
