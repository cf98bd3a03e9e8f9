"""Batch: images to train on, as labelled images, tasks or views; and the size of a batch."""

import hashlib
from dataclasses import dataclass, field
from typing import ClassVar

from jaxtyping import Float, Int, Num
from torch import Tensor

from metarep.data.task_index import TaskIndex
from metarep.machine.ranks import gather_rows


@dataclass(frozen=True)
class BatchShape:
    """The size of one batch.

    Args:
        ways: the number of classes of a labelled batch, or of each task.
        shots: images of each class in a labelled batch, or support images of each class of a task.
        queries: query images of each class. Only methods that train on tasks use it.
        tasks: tasks in a batch. Only methods that train on tasks use it.
        images: images in a batch. Only methods that train on views use it.

    >>> shape = BatchShape(ways=5, shots=1, queries=15, tasks=4)
    >>> shape.tasks * shape.ways * (shape.shots + shape.queries)  # images of a batch of tasks
    320
    """

    ways: int = 60
    shots: int = 1
    queries: int = 5
    tasks: int = 1
    images: int = 256


@dataclass(frozen=True)
class Batch:
    """Images of a batch on the device of the bank, and their rows there.

    Where several processes work on one batch, each has its part of the images (:class:`metarep.machine.ranks.Part`).

    Args:
        images: raw or augmented images. Each image of the batch is here once; where every image is a class of its own
            (``instances``), each of its views is here.
        rows: the row of each image in the bank, on the CPU; those of the images of other processes too.
        own: the positions of ``images`` among ``rows``.
        by_task: whether each process has whole tasks, so that no features are gathered.
        weight: how much the mean loss over this part counts in the mean over processes; 1 if all parts are equal.

    Attributes:
        called: what such a batch holds, as people read it.
        label_free: whether labels are never read. Then they must not choose among weights either.

    >>> import torch
    >>> batch = Batch(torch.zeros(2, 1, 4, 4), rows=torch.tensor([5, 9]))
    >>> batch.whole(torch.tensor([[0.5], [0.7]])).shape[0] == len(batch.rows)  # one process has all features
    True
    >>> batch.digest == Batch(torch.ones(2, 1, 4, 4), rows=torch.tensor([5, 9])).digest  # the same images were drawn
    True
    """

    called: ClassVar[str]
    label_free: ClassVar[bool] = False
    images: Num[Tensor, "n c h w"]
    rows: Int[Tensor, " all"]
    own: slice = field(default_factory=lambda: slice(None), kw_only=True)
    by_task: bool = field(default=False, kw_only=True)
    weight: float = field(default=1.0, kw_only=True)

    def whole(self, own: Float[Tensor, "n *row"]) -> Float[Tensor, "all *row"]:
        """The rows for all images of the batch, from those for the images of this process.

        In a single process, or if each process has whole tasks, ``own`` is returned as it is. Gradients flow back to
        the process of each row. A loss that compares images of the batch calls this first.
        """
        return own if self.by_task else gather_rows(own, len(self.rows))

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that identify the images drawn, by their rows."""
        return hashlib.sha256(self.rows.cpu().numpy().tobytes()).hexdigest()[:12]


@dataclass(frozen=True)
class LabelledBatch(Batch):
    """A batch of several images of each of several classes.

    Args:
        labels: the class of each image, numbered from 0 within the batch.
        classes: the class of each image, as a position in the names of the training labels.

    Labels and classes are those of all processes' images, if the method's loss spans the batch.

    >>> import torch
    >>> rows, labels = torch.tensor([5, 9]), torch.tensor([0, 1])
    >>> batch = LabelledBatch(torch.zeros(2, 1, 4, 4), rows, labels, classes=torch.tensor([3, 7]))
    >>> batch.called, len(batch.digest)
    ('labelled images', 12)
    """

    called: ClassVar[str] = "labelled images"
    labels: Int[Tensor, " labelled"]
    classes: Int[Tensor, " labelled"]


@dataclass(frozen=True)
class TaskBatch(Batch):
    """A batch of tasks.

    Args:
        tasks: the tasks; support and query are positions in ``images``, or in what ``whole`` gives for them.

    >>> import torch
    >>> images = torch.tensor([10.0, 11.0, 12.0]).view(3, 1, 1, 1)
    >>> label, way = torch.zeros(1, 2).long(), torch.zeros(1, 1).long()
    >>> task = TaskIndex(torch.tensor([[2]]), torch.tensor([[0, 1]]), way, label, classes=way, ways=1)
    >>> batch = TaskBatch(images, rows=torch.tensor([4, 7, 8]), tasks=task)
    >>> batch.tasks.of(batch.images.flatten()).query, batch.rows[batch.tasks.query]  # pixels, and rows in the bank
    (tensor([[10., 11.]]), tensor([[4, 7]]))
    """

    called: ClassVar[str] = "tasks"
    tasks: TaskIndex


@dataclass(frozen=True)
class Views(Batch):
    """A batch of two augmented views of each of several images.

    Args:
        second: another view of each of ``images``, augmented independently.
    """

    second: Num[Tensor, "n c h w"]

    def whole_views(self, own: Float[Tensor, "twice *row"]) -> Float[Tensor, "all_twice *row"]:
        """As :meth:`whole`, for rows of the first views of this process's images, followed by those of the second."""
        if len(own) == 2 * len(self.rows):  # of a single process
            return own
        return self.whole(own.unflatten(0, (2, -1)).transpose(0, 1)).transpose(0, 1).flatten(0, 1)


@dataclass(frozen=True)
class ViewBatch(Views):
    """A batch of two augmented views of each of several images. Labels are never read.

    >>> import torch
    >>> batch = ViewBatch(torch.zeros(2, 1, 4, 4), rows=torch.tensor([5, 9]), second=torch.ones(2, 1, 4, 4))
    >>> torch.cat([batch.images, batch.second]).mean((1, 2, 3))  # first views, then second views, in the same order
    tensor([0., 0., 1., 1.])
    """

    called: ClassVar[str] = "views"
    label_free: ClassVar[bool] = True


@dataclass(frozen=True)
class LabelledViewBatch(Views, LabelledBatch):
    """A batch of two augmented views of each of several images of each of several classes.

    >>> import torch
    >>> views, rows, labels = torch.zeros(2, 1, 4, 4), torch.tensor([5, 9]), torch.tensor([0, 1])
    >>> batch = LabelledViewBatch(views, rows, labels, classes=torch.tensor([3, 7]), second=views)
    >>> batch.called, batch.label_free
    ('labelled views', False)
    """

    called: ClassVar[str] = "labelled views"
