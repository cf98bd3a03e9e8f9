"""Batches: the things a method can eat, drawn from a bank by one function."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int, Num
from torch import Generator, Tensor

from metarep.augment import Augment
from metarep.errors import MetarepError
from metarep.images import ImageBank
from metarep.labels import Labels
from metarep.tasks import TaskIndex, draw_tasks

Food = Literal["labelled", "tasks"]


@dataclass(frozen=True)
class BatchShape:
    """What one batch holds.

    Args:
        ways: classes in a labelled batch, or classes a task.
        shots: images a class in a labelled batch, or support images a class.
        queries: query images a class; for methods that eat tasks.
        tasks: tasks in a batch; for methods that eat tasks.
    """

    ways: int = 60
    shots: int = 1
    queries: int = 5
    tasks: int = 1


@dataclass(frozen=True)
class Batch:
    """Images with what is known of them, on the device of the bank.

    Args:
        images: raw or augmented images, every one of the batch once.
        labels: the class of each image within the batch (labelled batches).
        tasks: the tasks, as rows of ``images`` (task batches).
        rows: which rows of the bank the images are.
    """

    images: Num[Tensor, "n c h w"]
    labels: Int[Tensor, " n"] | None
    tasks: TaskIndex | None
    rows: Int[Tensor, " n"]

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that name the images drawn."""
        return hashlib.sha256(self.rows.cpu().numpy().tobytes()).hexdigest()[:12]


def draw_batch(
    food: Food, bank: ImageBank, labels: Labels, shape: BatchShape, augment: Augment | None, generator: Generator
) -> Batch:
    """Draw a batch of what a method eats; with ``augment`` every image is a view of its own.

    Raises:
        DataError: the labels cannot give ``shape``.
    """
    if food == "labelled":
        index = draw_tasks(labels, 1, ways=shape.ways, shots=shape.shots, queries=0, generator=generator)
        rows, known, tasks = index.support[0], index.support_y[0].to(bank.images.device), None
    elif food == "tasks":
        index = draw_tasks(
            labels, shape.tasks, ways=shape.ways, shots=shape.shots, queries=shape.queries, generator=generator
        )
        rows, known, tasks = _lay_out(index)
    else:
        raise MetarepError(f"no batch is called {food!r}; methods eat 'labelled' or 'tasks'")
    images = bank.pixels(rows)
    return Batch(augment(images, generator) if augment else images, known, tasks, rows)


def _lay_out(index: TaskIndex) -> tuple[Tensor, None, TaskIndex]:
    """All images of the tasks in a row, and the tasks as places in that row."""
    both = torch.cat([index.support, index.query], dim=1)
    place = torch.arange(both.numel()).view(both.shape)
    support, query = place.split([index.support.shape[1], index.query.shape[1]], dim=1)
    return both.reshape(-1), None, TaskIndex(support, query, index.support_y, index.query_y, index.classes, index.ways)
