"""Tasks as index tensors: which images are support, which are query. They hold no pixels."""

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Generator, Tensor

from metarep.errors import DataError, MetarepError
from metarep.groups import apart, apart_at
from metarep.labels import Labels
from metarep.wording import counted


class SmallClassWarning(UserWarning):
    """Warns that some classes have too few images for the tasks asked for, and are left out."""


class Tasks(NamedTuple):
    """Pixels or features, arranged by task.

    Attributes:
        support, query: one row for each image of each task.
        support_y, query_y: the class of each row within its task, 0 to ways - 1. Each task numbers its classes in its
            own order.
        ways: the number of classes of a task.
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
            content.update(field.cpu().to(torch.int64).numpy().tobytes())
        return content.hexdigest()[:12]


def draw_tasks(labels: Labels, n: int, *, ways: int, shots: int, queries: int, generator: Generator) -> TaskIndex:
    """Draw ``n`` tasks at random, classes and images both without replacement.

    Every set of classes, and within a class every set of images, is equally likely. Each task numbers its classes in
    a random order. There is no Python loop over tasks. Classes that cannot give ``shots + queries`` images are never
    drawn. Where labels have groups (typefaces), the support and query images of a class come from different groups.
    Where each image is a class of its own (``labels.kind`` is ``instances``), it is drawn ``shots + queries`` times.
    Its samples are views, and the caller makes them by augmentation.

    Args:
        labels: the classes to draw from.
        n: the number of tasks.
        ways: the number of classes of a task.
        shots, queries: support and query images of each class.
        generator: a CPU generator; the same state gives the same tasks on every machine.

    Raises:
        DataError: fewer than ``ways`` classes have enough images. The message names the smallest class.

    >>> labels = Labels.of([c for c in "abcdef" for _ in range(20)])
    >>> tasks = draw_tasks(labels, 100, ways=5, shots=1, queries=15, generator=torch.Generator().manual_seed(0))
    >>> len(tasks), tasks.shots, tasks.queries
    (100, 1, 15)
    >>> torch.equal(labels.classes[tasks.support], tasks.classes)
    True
    """
    if min(n, ways, shots) < 1 or queries < 0:
        raise MetarepError(
            f"tasks need at least 1 way and 1 shot, not ways={ways}, shots={shots}, queries={queries}, n={n}"
        )
    usable = usable_classes(labels, ways, shots, queries)
    classes = usable[_distinct(torch.full((n,), len(usable)), ways, generator)]
    return tasks_of(labels, classes, shots=shots, queries=queries, generator=generator)


def tasks_of(
    labels: Labels, classes: Int[Tensor, "task ways"], *, shots: int, queries: int, generator: Generator
) -> TaskIndex:
    """Draw the images of tasks whose classes are given; otherwise as :func:`draw_tasks`.

    Args:
        labels: the labels to draw from.
        classes: the classes of each task, in its own order.
        shots, queries: support and query images of each class.
        generator: a CPU generator.
    """
    n, ways = classes.shape
    if labels.kind == "instances":
        position = torch.zeros(*classes.shape, shots + queries, dtype=torch.long)
    elif labels.groups is None or queries == 0:
        position = _distinct(labels.counts[classes], shots + queries, generator)
    else:
        position = apart(labels, labels.groups.cpu(), classes, shots, queries, generator)
    rows = labels.rows[labels.starts[classes].unsqueeze(-1) + position]
    support_y = torch.arange(ways).repeat_interleave(shots).expand(n, -1)
    query_y = torch.arange(ways).repeat_interleave(queries).expand(n, -1)
    support, query = rows[..., :shots].reshape(n, -1), rows[..., shots:].reshape(n, -1)
    groups = None
    if labels.groups is not None and labels.kind != "instances":
        groups = labels.groups.cpu()[torch.cat([support, query], dim=1)]
    return TaskIndex(support, query, support_y, query_y, classes, ways, groups)


def draw_varied_tasks(
    labels: Labels, n: int, *, ways: range, shots: range, queries: int, generator: Generator
) -> list[TaskIndex]:
    """Draw ``n`` tasks whose ways and shots are drawn uniformly from ``ways`` and ``shots``.

    Returns:
        The tasks of each shape that was drawn, so that tasks of one shape run as one batch. Together they are ``n``.

    >>> labels = Labels.of([c for c in "abcdef" for _ in range(20)])
    >>> generator = torch.Generator().manual_seed(0)
    >>> some = draw_varied_tasks(labels, 50, ways=range(2, 6), shots=range(1, 4), queries=5, generator=generator)
    >>> sum(len(tasks) for tasks in some)
    50
    """
    shapes = [(way, shot) for way in ways for shot in shots]
    counts = torch.bincount(torch.randint(len(shapes), (n,), generator=generator), minlength=len(shapes)).tolist()
    return [
        draw_tasks(labels, count, ways=way, shots=shot, queries=queries, generator=generator)
        for (way, shot), count in zip(shapes, counts, strict=True)
        if count
    ]


def usable_classes(labels: Labels, ways: int, shots: int, queries: int) -> Int[Tensor, " n"]:
    """The classes that have enough images for tasks of this shape, as positions in ``labels.names``.

    Raises:
        DataError: fewer than ``ways`` classes have enough. The message names the smallest class.
    """
    need = 1 if labels.kind == "instances" else shots + queries
    able = labels.can_give(shots, queries)
    usable = able.nonzero().squeeze(1)
    if len(usable) < ways:
        want = f"{ways}-way {shots}-shot tasks with {queries} queries need {ways} classes of at least {need} images"
        if labels.kind == "clusters":
            raise DataError(
                f"{want}; {len(usable)} of the {len(labels.names)} clusters have as many. Use fewer clusters, ways, "
                "shots or queries"
            )
        if len(labels.names) < ways:
            raise DataError(f"{want}; there are {len(labels.names)} classes. Use fewer ways, or add classes")
        raise DataError(
            f"{want}; {len(usable)} of the {len(labels.names)} classes have as many, and "
            f"{_smallest(labels, able, need)}. Use fewer shots or queries, or add images"
        )
    return usable


def tell_small_classes(labels: Labels, able: Bool[Tensor, " n"], what: str, shots: int, queries: int) -> None:
    """Give a ``SmallClassWarning`` if some classes have too few images. It counts them and names the smallest.

    Args:
        labels: the classes.
        able: whether each class has enough images, from ``Labels.can_give``.
        what: what they are left out of, such as ``training on mine/train``.
        shots, queries: support and query images that a task needs of a class.
    """
    if not able.all():
        out, need = int((~able).sum()), shots + queries
        warnings.warn(
            f"{out} of the {len(labels.names)} classes {'is' if out == 1 else 'are'} left out of {what}: "
            f"{shots}-shot tasks with {queries} queries need {need} images of a class, and "
            f"{_smallest(labels, able, need)}",
            SmallClassWarning,
            stacklevel=3,
        )


def _smallest(labels: Labels, able: Tensor, need: int) -> str:
    """The part of a message that names the smallest class that is not ``able``, and says what it has."""
    worst = int(labels.counts.masked_fill(able, len(labels) + 1).argmin())
    has = f"{labels.names[worst]!r} has {int(labels.counts[worst])}"
    if labels.counts[worst] < need or labels.groups is None:
        return has
    kinds = len(labels.groups.cpu()[labels.classes.cpu() == worst].unique())
    return f"{has}, of {counted(kinds, 'group')}; support and query of a class must come from different groups"


def _randint(below: Tensor, generator: Generator) -> Tensor:
    """Draw an integer from 0 to ``below - 1`` for each element.

    The modulo has a bias of less than 2**-40 for any real data set.
    """
    return torch.randint(2**62, below.shape, generator=generator) % below


def _distinct(population: Int[Tensor, "*shape"], k: int, generator: Generator) -> Int[Tensor, "*shape k"]:
    """``k`` distinct integers below each ``population``, in random order.

    Floyd's algorithm, one step a draw for all tasks at once: it costs k**2 comparisons whatever the population, where
    sorting random keys would cost the whole population for each task.
    """
    chosen = torch.empty(*population.shape, k, dtype=torch.long)
    for i in range(k):
        last = population - k + i
        pick = _randint(last + 1, generator)
        taken = (chosen[..., :i] == pick.unsqueeze(-1)).any(-1)
        chosen[..., i] = torch.where(taken, last, pick)
    order = torch.rand(chosen.shape, generator=generator).argsort(-1)
    return chosen.gather(-1, order)
