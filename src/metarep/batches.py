"""Batches: the things a method can eat, drawn from a bank by one function."""

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int, Num
from torch import Generator, Tensor

from metarep.augment import Augment
from metarep.errors import DataError, MetarepError
from metarep.images import ImageBank
from metarep.labels import Labels
from metarep.tasks import TaskIndex, draw_tasks

VIEW_PRESETS = "set augment to views-drawings, crops-drawings, views-32 or few-shot-84"


@dataclass(frozen=True)
class BatchShape:
    """What one batch holds.

    Args:
        ways: classes in a labelled batch, or classes a task.
        shots: images a class in a labelled batch, or support images a class.
        queries: query images a class; for methods that eat tasks.
        tasks: tasks in a batch; for methods that eat tasks.
        images: images in a batch of views; for methods that eat views.
    """

    ways: int = 60
    shots: int = 1
    queries: int = 5
    tasks: int = 1
    images: int = 256


@dataclass(frozen=True)
class Batch:
    """Images and where they are from, on the device of the bank.

    Args:
        images: raw or augmented, every one of the batch once; of ``instances`` every view.
        rows: which rows of the bank they are.
    """

    called: ClassVar[str]
    label_free: ClassVar[bool] = False  # labels are never read, so they must not choose among weights either
    images: Num[Tensor, "n c h w"]
    rows: Int[Tensor, " n"]

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that name the images drawn."""
        return hashlib.sha256(self.rows.cpu().numpy().tobytes()).hexdigest()[:12]


@dataclass(frozen=True)
class LabelledBatch(Batch):
    """Some images of each of some classes.

    Args:
        labels: the class of each image within the batch, from 0.
        classes: the same within all that is trained on.
    """

    called: ClassVar[str] = "labelled images"
    labels: Int[Tensor, " n"]
    classes: Int[Tensor, " n"]


@dataclass(frozen=True)
class TaskBatch(Batch):
    """Tasks, as rows of ``images``."""

    called: ClassVar[str] = "tasks"
    tasks: TaskIndex


@dataclass(frozen=True)
class ViewBatch(Batch):
    """Two views of each of some images; who is in which class is never looked at.

    Args:
        second: for each of ``images`` another view of the same image, with its own draw.
    """

    called: ClassVar[str] = "views"
    label_free: ClassVar[bool] = True
    second: Num[Tensor, "n c h w"]


def draw_batch(
    eats: type[Batch], bank: ImageBank, labels: Labels, shape: BatchShape, augment: Augment | None, generator: Generator
) -> Batch:
    """Draw a batch of what a method eats; with ``augment`` every image is a view of its own.

    An image that stands for its class alone (``labels.kind`` is ``instances``) comes up once for every sample, each
    time with its own draw.

    Raises:
        DataError: the labels, or for views the bank, cannot give ``shape``.
        MetarepError: a shape that nothing can be learned from, or views or instances without an augmentation.
    """
    if eats is ViewBatch:
        return _draw_views(bank, shape.images, augment, generator)
    check_shape(eats, shape)
    labelled = eats is LabelledBatch
    if labels.kind == "instances" and augment is None:
        raise MetarepError(
            "the samples of an image that is its own class are the same without augmentation, and nothing could be "
            f"learned from them; {VIEW_PRESETS}"
        )
    if labels.others:
        choice = (labels, *labels.others)
        labels = choice[int(torch.randint(len(choice), (), generator=generator))]
    index = draw_tasks(
        labels,
        1 if labelled else shape.tasks,
        ways=shape.ways,
        shots=shape.shots,
        queries=0 if labelled else shape.queries,
        generator=generator,
    )
    return batch_of(eats, bank, index, augment, generator)


def check_shape(eats: type[Batch], shape: BatchShape) -> None:
    """Raise for a shape that nothing can be learned from."""
    if eats is LabelledBatch and shape.shots < 2:
        raise MetarepError(f"a labelled batch needs at least 2 images a class to make pairs, not shots={shape.shots}")
    if eats is TaskBatch and shape.queries < 1:
        raise MetarepError(f"tasks to train on need at least 1 query a class, not queries={shape.queries}")


def batch_of(
    eats: type[Batch], bank: ImageBank, index: TaskIndex, augment: Augment | None, generator: Generator
) -> Batch:
    """The images of tasks that were drawn already, as what a method eats: labelled images (of one task) or tasks."""
    both = torch.cat([index.support, index.query], dim=1)
    rows = both.reshape(-1)
    images = bank.pixels(rows)
    if augment:
        images = augment(images, generator)
    if eats is LabelledBatch:
        both = torch.stack([index.support_y[0], index.classes[0][index.support_y[0]]])
        return LabelledBatch(images, rows, *both.to(images.device, non_blocking=True))
    place = torch.arange(both.numel()).view(both.shape)
    support, query = place.split([index.support.shape[1], index.query.shape[1]], dim=1)
    return TaskBatch(images, rows, index.of_rows(support, query))


def _draw_views(bank: ImageBank, n: int, augment: Augment | None, generator: Generator) -> ViewBatch:
    if augment is None:
        raise MetarepError(
            "two views of an image are the same without augmentation, and nothing could be learned from them; "
            f"{VIEW_PRESETS}"
        )
    if n > len(bank):
        raise DataError(f"a batch of {n} different images needs a data set of as many, not {len(bank)}; ask for fewer")
    rows = torch.randperm(len(bank), generator=generator)[:n]
    images = bank.pixels(rows)
    return ViewBatch(augment(images, generator), rows, augment(images, generator))
