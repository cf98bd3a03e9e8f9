"""Budget: a number of seconds as a number of steps, by timing the first steps of a training."""

import time
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from metarep.data.datasets import load_dataset
from metarep.encoders import computing
from metarep.experiments.job import Job, build, own_settings, train_settings
from metarep.experiments.measurement.evaluation import evaluate
from metarep.experiments.training import train
from metarep.experiments.validation import validation_tasks
from metarep.machine.device import Precision

VALIDATIONS = 4  # at most, evenly over a training
SHARE = 0.25  # of the budget for validations, if it is enough for one
FEW, MANY = 20, 200  # tasks of a validation
SAVE = 30.0  # seconds between two saved states, if validations are far apart
PROBE = 0.05  # of the budget, for timing
LEAST, MOST = 0.1, 5.0  # seconds of timing


class Pace(NamedTuple):
    """The speed of a training on this machine.

    Attributes:
        step: seconds of a step.
        validation: seconds of a validation; 0 without one.
        tasks: tasks of such a validation.
    """

    step: float
    validation: float
    tasks: int

    def settings(self, budget: float) -> dict[str, Any]:
        """The settings of a training that takes as long as the budget.

        The number of steps is set before the training, so its learning rate falls to the end of its schedule in time.

        Args:
            budget: seconds for steps and validations.

        >>> Pace(step=0.01, validation=0.5, tasks=200).settings(10.0)
        {'steps': 800, 'validate_every': 200, 'validation_tasks': 200}
        >>> Pace(step=0.5, validation=3.0, tasks=20).settings(1.0)["steps"]
        1
        """
        count = VALIDATIONS
        if self.validation:
            count = min(VALIDATIONS, max(1, int(SHARE * budget / self.validation)))
        steps = max(1, int((budget - count * self.validation) / self.step))
        every = -(-steps // count)
        saves = {"save_every": int(SAVE / self.step)} if every * self.step > 2 * SAVE else {}
        return {"steps": steps, "validate_every": every, "validation_tasks": self.tasks, **saves}


def tasks_within(seconds: float, few: float) -> int:
    """The number of tasks of a validation that takes at most this long.

    Args:
        seconds: time of the validation.
        few: time of a validation with 20 tasks; tasks that share images take less, so this is on the safe side.

    >>> tasks_within(1.0, few=0.2), tasks_within(1.0, few=5.0), tasks_within(60.0, few=0.2)
    (100, 20, 200)
    """
    return min(MANY, max(FEW, int(FEW * seconds / few)))


def pace_of(job: Job, budget: float, device: torch.device, precision: Precision, **reading: Any) -> Pace:  # noqa: ANN401
    """Time the first steps of a training and a validation, with a copy that is thrown away.

    Args:
        job: the training.
        budget: seconds of the training; timing takes a twentieth of it or more.
        device, precision: see :func:`metarep.experiments.start.start_on`.
        reading: ``data_dir`` and ``skip_bad`` of :func:`metarep.data.datasets.load_dataset`.
    """
    split = load_dataset(job.data, job.train_on, size=job.size, **reading)
    settings = replace(train_settings(job, split), lr=1e-9, validation_tasks=FEW)  # weights hardly change
    method = build(job, split, settings, own_settings(job, settings, split)).to(device)
    wanted = min(max(LEAST, PROBE * budget), MOST)
    with computing(method, precision):
        steps, seconds = 1, 0.0
        train(method, split, replace(settings, steps=1))  # the first step is slow
        while seconds < wanted:
            steps *= 2
            began = time.perf_counter()
            train(method, split, replace(settings, steps=steps))
            seconds = time.perf_counter() - began
        if job.train_on != "train":
            return Pace(seconds / steps, 0.0, FEW)
        validation = load_dataset(job.data, "val", size=job.size, **reading)

        def validated(tasks: int) -> float:
            drawn = validation_tasks(validation, replace(settings, validation_tasks=tasks), method.learner, method.eats)
            return evaluate(method.learner, validation.bank, drawn).seconds if drawn is not None else 0.0

        if not (few := validated(FEW)):
            return Pace(seconds / steps, 0.0, FEW)
        tasks = tasks_within(SHARE * budget / VALIDATIONS, few)
        return Pace(seconds / steps, validated(tasks) if tasks > FEW else few, tasks)
