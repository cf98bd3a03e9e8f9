"""Validation tasks, on which a training measures its weights and chooses the best."""

import warnings

from torch import Generator

from metarep.data.batch import Batch, TaskBatch
from metarep.data.split import Split
from metarep.data.tasks import SmallClassWarning, TaskIndex, draw_tasks, warn_of_small_classes
from metarep.learners import Learner
from metarep.weights.settings import TrainSettings

QUERIES = 5  # images of each class; fewer if some class has fewer


def validation_shots(settings: TrainSettings, eats: type[Batch]) -> int:
    """The number of support images of each class in validation tasks.

    It is ``settings.validation_shots``. If that is None, it is the number of shots that the method trains on, or 1 for
    a method that does not train on tasks.

    >>> validation_shots(TrainSettings(shots=5), TaskBatch)
    5
    """
    return settings.validation_shots or (settings.shots if eats is TaskBatch else 1)


def validation_tasks(
    validation: Split, settings: TrainSettings, learner: Learner, eats: type[Batch]
) -> TaskIndex | None:
    """The tasks that every validation of a training measures on; None if the classes cannot give any.

    Classes that are too small are left out. If too few remain, the tasks have fewer shots.

    Args:
        validation: images and labels of classes that are not trained on.
        settings: the number of tasks, of ways and of shots, and the seed.
        learner: the learner to validate; it fixes the number of ways if it has ``ways``.
        eats: the type of batch that the method trains on.

    Warns:
        SmallClassWarning: classes are left out, the tasks have fewer shots, or there are no tasks.
    """
    labels, least = validation.labels, learner.ways or 2
    wanted = validation_shots(settings, eats)
    shots = next((shots for shots in range(wanted, 0, -1) if int(labels.can_give(shots, 1).sum()) >= least), None)
    if shots is None:
        text = (
            f"nothing to validate on, so the last weights are kept: {least}-way 1-shot tasks need {least} classes of "
        )
        _warn(f"{text}at least 2 images, and {validation.name} has {int(labels.can_give(1, 1).sum())}")
        return None
    if shots < wanted:
        able, are = int(labels.can_give(wanted, 1).sum()), f"of the {len(labels.names)} classes of {validation.name}"
        large = f"{able} {are} {'is' if able == 1 else 'are'} large enough"
        _warn(f"validated on {shots}-shot tasks, not {wanted}-shot, for which {large}")
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
