"""Distillation in a run: open the teacher of a training, and let the method learn from it."""

from pathlib import Path

import torch

from metarep.data.labels import Labels
from metarep.encoders.warm_start import refuse_other_images
from metarep.errors import MetarepError
from metarep.experiments.job import Job
from metarep.methods import Baseline, Method
from metarep.methods.student import Student
from metarep.weights.checkpoint import Checkpoint, load_checkpoint
from metarep.weights.shipped import load_trained

TEACHER = "teacher.safetensors"  # in the run folder: a copy of the teacher, which its own run may replace


def teacher_of(job: Job, kept: Path | None, device: torch.device) -> Checkpoint | None:
    """The teacher of a job, on a device; None if it has none.

    Args:
        job: the training.
        kept: the copy of the teacher in the run folder of a training that is resumed. If it exists, it is used, even if
            the teacher was trained again since. None for a training that starts.
        device: where to put its weights.
    """
    if job.teacher is None:
        return None
    return load_checkpoint(kept, device) if kept and kept.exists() else load_trained(job.teacher, device)


def teach(method: Method, teacher: Checkpoint, labels: Labels, name: str) -> None:
    """Let a method learn from a teacher.

    Args:
        method: a :class:`metarep.methods.student.Student`.
        teacher: frozen, and in evaluation mode from now on.
        labels: the labels to train on.
        name: name of the teacher's run, for the messages.

    Raises:
        MetarepError: the teacher is for other images, or its logits are not of the same classes.
    """
    assert isinstance(method, Student)
    refuse_other_images(method.learner.encoder, teacher.learner.encoder, name)
    try:
        method.learn_from(teacher.method)
    except MetarepError as error:
        raise MetarepError(f"{name}: {error.message}", advice=error.advice) from error
    if isinstance(method, Baseline) and teacher.record.data.digest != labels.digest:
        raise MetarepError(
            f"{name} was trained on other labels, so its logits are not of these classes",
            advice="take a teacher that was trained on the same data, split and labels",
        )
