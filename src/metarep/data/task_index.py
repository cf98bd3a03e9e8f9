"""Tasks as index tensors: which images are support, which are query. They hold no pixels."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from metarep.data.groups import apart_at

AT_ONCE = 10_000  # tasks whose digest is computed at once


class Tasks(NamedTuple):
    """Pixels or features, arranged by task.

    Attributes:
        support, query: one row for each image of each task.
        support_y, query_y: the class of each row within its task, 0 to ways - 1. Each task numbers its classes in its
            own order.
        ways: the number of classes of a task.

    >>> ways = torch.tensor([[0, 1]])
    >>> index = TaskIndex(torch.tensor([[0, 2]]), torch.tensor([[1, 3]]), ways, ways, classes=ways, ways=2)
    >>> tasks = index.of(torch.tensor([10.0, 11.0, 20.0, 21.0]))  # one feature for each image
    >>> tasks.support, tasks.query, tasks.query_y
    (tensor([[10., 20.]]), tensor([[11., 21.]]), tensor([[0, 1]]))
    """

    support: Shaped[Tensor, "task support *row"]
    support_y: Int[Tensor, "task support"]
    query: Shaped[Tensor, "task query *row"]
    query_y: Int[Tensor, "task query"]
    ways: int


@dataclass(frozen=True)
class TaskIndex:
    """Tasks of one shape, as rows of a bank. Ten thousand of them take a few megabytes.

    Args:
        support, query: the row in the bank of each image of each task.
        support_y, query_y: the class of each row within its task, 0 to ways - 1.
        classes: the class in the labels that each way of a task stands for.
        ways: the number of classes of a task.
        groups: the group of each row, support rows first; None where labels have no groups. Support and query of a
            class never share a group.

    >>> from metarep import Labels, draw_tasks
    >>> labels = Labels.of(list("aaabbbccc"))
    >>> tasks = draw_tasks(labels, 10, ways=2, shots=1, queries=2, generator=torch.Generator().manual_seed(0))
    >>> len(tasks), tasks.shots, tasks.queries, [len(part) for part in tasks.chunks(4)]
    (10, 1, 2, [4, 4, 2])
    """

    support: Int[Tensor, "task support"]
    query: Int[Tensor, "task query"]
    support_y: Int[Tensor, "task support"]
    query_y: Int[Tensor, "task query"]
    classes: Int[Tensor, "task ways"]
    ways: int
    groups: Int[Tensor, "task both"] | None = None

    def __len__(self) -> int:
        """The number of tasks."""
        return len(self.support)

    @property
    def shots(self) -> int:
        """Support images of a class, if all classes have equally many, as in tasks from ``draw_tasks``."""
        return self.support.shape[1] // self.ways

    @property
    def queries(self) -> int:
        """Query images of a class, if all classes have equally many, as in tasks from ``draw_tasks``."""
        return self.query.shape[1] // self.ways

    def of(self, rows: Shaped[Tensor, "n *row"]) -> Tasks:
        """Gather the rows of these tasks.

        Args:
            rows: one row for each image of the bank: its pixels, or features that were computed once for all tasks.

        >>> tasks = TaskIndex(torch.tensor([[2]]), torch.tensor([[0]]), *[torch.zeros(1, 1).long()] * 3, ways=1)
        >>> tasks.of(torch.tensor([10.0, 11.0, 12.0])).support
        tensor([[12.]])
        """
        device = rows.device

        def gather(index: Tensor) -> Tensor:
            flat = index.reshape(-1).to(device, non_blocking=True)
            return rows.index_select(0, flat).view(*index.shape, *rows.shape[1:])

        labels = [each.to(device, non_blocking=True) for each in (self.support_y, self.query_y)]
        return Tasks(gather(self.support), labels[0], gather(self.query), labels[1], self.ways)

    def chunks(self, size: int) -> Iterator["TaskIndex"]:
        """Yield these tasks in parts of at most ``size`` tasks."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def __getitem__(self, part: slice) -> "TaskIndex":
        labels = self.support_y[part], self.query_y[part], self.classes[part]
        groups = None if self.groups is None else self.groups[part]
        return TaskIndex(self.support[part], self.query[part], *labels, self.ways, groups)

    def compact(self) -> "tuple[Int[Tensor, ' n'], TaskIndex]":
        """Renumber the rows, so that only the images that these tasks use are encoded, and each of them once.

        Returns:
            The distinct rows in rising order, and the same tasks as positions in that list.

        >>> tasks = TaskIndex(torch.tensor([[30]]), torch.tensor([[10]]), *[torch.zeros(1, 1).long()] * 3, ways=1)
        >>> used, compact = tasks.compact()
        >>> used.tolist(), compact.support.tolist(), compact.query.tolist()
        ([10, 30], [[1]], [[0]])
        """
        both = torch.cat([self.support, self.query], dim=1)
        used, position = torch.unique(both, return_inverse=True)
        support, query = position.split([self.support.shape[1], self.query.shape[1]], dim=1)
        return used, self.of_rows(support, query)

    def of_rows(self, support: Int[Tensor, "task support"], query: Int[Tensor, "task query"]) -> "TaskIndex":
        """Return these tasks with other row numbers for the same images."""
        return replace(self, support=support, query=query)

    def turned(self, turns: int) -> "TaskIndex":
        """Make ``turns`` times as many tasks from the same images, each time with the next images as support.

        The encoder runs once for all of them, and comparing features costs next to nothing. Where labels have groups,
        a query that shares a group with the support of its class is replaced by another query of that class, which
        then appears more than once. A class without such another query keeps the support that was drawn.

        Returns:
            The tasks of the first turn, which are these, then those of the second turn, and so on.

        >>> ways = torch.tensor([[0, 1]])
        >>> tasks = TaskIndex(torch.tensor([[0, 2]]), torch.tensor([[1, 3]]), ways, ways, ways, ways=2)
        >>> tasks.turned(2).support.tolist(), tasks.turned(2).query.tolist()
        ([[0, 2], [1, 3]], [[1, 3], [0, 2]])
        """
        n, ways, shots = len(self), self.ways, self.shots

        def by_class(rows: Tensor) -> Tensor:
            """Arrange rows as ``(task, way, image)``, the support of each class before its queries."""
            parts = rows.split([self.support.shape[1], self.query.shape[1]], dim=1)
            return torch.cat([part.reshape(n, ways, -1) for part in parts], dim=-1)

        members = by_class(torch.cat([self.support, self.query], dim=1))
        drawn = torch.arange(members.shape[-1]).expand_as(members)
        orders = [drawn.roll(-shots * turn, dims=-1) for turn in range(turns)]
        if self.groups is not None:
            groups = by_class(self.groups)
            orders = [apart_at(groups, order, drawn, shots) for order in orders]
        turned = torch.cat([members.gather(-1, order) for order in orders])
        support, query = turned[..., :shots].flatten(1), turned[..., shots:].flatten(1)
        labels = (self.support_y.repeat(turns, 1), self.query_y.repeat(turns, 1), self.classes.repeat(turns, 1))
        return TaskIndex(support, query, *labels, ways)

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that identify this set of tasks. They are equal on every device and machine."""
        content = hashlib.sha256(str(self.ways).encode())
        for field in (self.support, self.query, self.support_y, self.query_y):
            for some in field.split(AT_ONCE):
                content.update(some.cpu().to(torch.int64).numpy().tobytes())
        return content.hexdigest()[:12]


def digest_of(sets: Sequence[TaskIndex]) -> str:
    """The digest of one set of tasks, or one digest made from those of several sets.

    >>> tasks = TaskIndex(torch.tensor([[2]]), torch.tensor([[0]]), *[torch.zeros(1, 1).long()] * 3, ways=1)
    >>> digest_of([tasks]) == tasks.digest, digest_of([tasks, tasks]) == tasks.digest
    (True, False)
    """
    if len(sets) == 1:
        return sets[0].digest
    return hashlib.sha256("".join(part.digest for part in sets).encode()).hexdigest()[:12]
