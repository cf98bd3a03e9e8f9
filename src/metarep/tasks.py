"""Tasks as index tensors: who is support, who is query, and no pixels."""

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


class SmallClassWarning(UserWarning):
    """Classes are too small for the tasks that are wanted, and are left out."""


class Tasks(NamedTuple):
    """Rows (pixels or features) arranged by task; labels are 0 to ways - 1, in an order of the task's own."""

    support: Shaped[Tensor, "task support *row"]
    support_y: Int[Tensor, "task support"]
    query: Shaped[Tensor, "task query *row"]
    query_y: Int[Tensor, "task query"]
    ways: int


@dataclass(frozen=True)
class TaskIndex:
    """Tasks of one shape, as rows of a bank. Ten thousand of them are a few megabytes.

    Args:
        support, query: rows of the bank.
        support_y, query_y: each row's class within its task, 0 to ways - 1.
        classes: which class of the labels each way is.
        ways: classes a task.
        groups: of each row, support first, what support and query of its class must not share; None if nothing.
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
        """Support images a class (tasks that ``draw_tasks`` made are balanced)."""
        return self.support.shape[1] // self.ways

    @property
    def queries(self) -> int:
        """Query images a class."""
        return self.query.shape[1] // self.ways

    def of(self, rows: Shaped[Tensor, "n *row"]) -> Tasks:
        """The same tasks made of ``rows``: pixels, or features computed once for all tasks."""
        device = rows.device

        def gather(index: Tensor) -> Tensor:
            at = index.reshape(-1).to(device, non_blocking=True)
            return rows.index_select(0, at).view(*index.shape, *rows.shape[1:])

        labels = [each.to(device, non_blocking=True) for each in (self.support_y, self.query_y)]
        return Tasks(gather(self.support), labels[0], gather(self.query), labels[1], self.ways)

    def chunks(self, size: int) -> Iterator["TaskIndex"]:
        """These tasks, at most ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def __getitem__(self, part: slice) -> "TaskIndex":
        labels = self.support_y[part], self.query_y[part], self.classes[part]
        groups = None if self.groups is None else self.groups[part]
        return TaskIndex(self.support[part], self.query[part], *labels, self.ways, groups)

    def compact(self) -> "tuple[Int[Tensor, ' n'], TaskIndex]":
        """The distinct rows that these tasks use, and the tasks as rows of that list: each image is encoded once."""
        both = torch.cat([self.support, self.query], dim=1)
        used, place = torch.unique(both, return_inverse=True)
        support, query = place.split([self.support.shape[1], self.query.shape[1]], dim=1)
        return used, self.of_rows(support, query)

    def of_rows(self, support: Int[Tensor, "task support"], query: Int[Tensor, "task query"]) -> "TaskIndex":
        """The same tasks where their images have other rows."""
        return replace(self, support=support, query=query)

    def turned(self, turns: int) -> "TaskIndex":
        """The same images ``turns`` times over, each time with the next ones of every class as support.

        More tasks from the same encoded images: the encoder is run once, the comparison of features costs next to
        nothing. Where there are groups, a query whose group is in the support of its class gives its place to the
        others, which come up more often; a class that has no others stays as it was drawn.
        """
        n, ways, shots = len(self), self.ways, self.shots

        def by_class(rows: Tensor) -> Tensor:
            """First the support of each class, then its queries."""
            parts = rows.split([self.support.shape[1], self.query.shape[1]], dim=1)
            return torch.cat([part.reshape(n, ways, -1) for part in parts], dim=-1)

        members = by_class(torch.cat([self.support, self.query], dim=1))
        place = torch.arange(members.shape[-1]).expand_as(members)
        if self.groups is None:
            order = [place.roll(-shots * turn, dims=-1) for turn in range(turns)]
        else:
            groups = by_class(self.groups)
            order = [apart_at(groups, place.roll(-shots * turn, dims=-1), place, shots) for turn in range(turns)]
        every = torch.cat([members.gather(-1, each) for each in order]).split(
            [shots, members.shape[-1] - shots], dim=-1
        )
        support, query = (part.flatten(1) for part in every)
        labels = (self.support_y.repeat(turns, 1), self.query_y.repeat(turns, 1), self.classes.repeat(turns, 1))
        return TaskIndex(support, query, *labels, ways)

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that name this set of tasks, on every device and in every process."""
        content = hashlib.sha256(str(self.ways).encode())
        for field in (self.support, self.query, self.support_y, self.query_y):
            content.update(field.cpu().to(torch.int64).numpy().tobytes())
        return content.hexdigest()[:12]


def draw_tasks(labels: Labels, n: int, *, ways: int, shots: int, queries: int, generator: Generator) -> TaskIndex:
    """Draw ``n`` tasks: classes without replacement, images without replacement, each task's label order its own.

    Every set of classes, and within a class every set of images, is equally likely; there is no Python loop over
    tasks. Classes that cannot give ``shots + queries`` images are never drawn. Where labels have groups (typefaces),
    a class's support and query images come from different groups. Where each image is a class of its own
    (``labels.kind`` is ``instances``) it is drawn ``shots + queries`` times: its samples are views, which whoever
    takes the pixels must make.

    Args:
        labels: the classes to draw from.
        n: number of tasks.
        ways: classes a task.
        shots, queries: support and query images a class.
        generator: a CPU generator; the same state gives the same tasks on every machine.

    Raises:
        DataError: fewer than ``ways`` classes have enough images; it names the smallest class.

    >>> labels = Labels.of([c for c in "abcdef" for _ in range(20)])
    >>> tasks = draw_tasks(labels, 100, ways=5, shots=1, queries=15, generator=torch.Generator().manual_seed(0))
    >>> tasks.support.shape, tasks.query.shape
    (torch.Size([100, 5]), torch.Size([100, 75]))
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
    """Tasks of classes that somebody has chosen; images are drawn as in :func:`draw_tasks`."""
    n, ways = classes.shape
    if labels.kind == "instances":
        place = torch.zeros(*classes.shape, shots + queries, dtype=torch.long)
    elif labels.groups is None or queries == 0:
        place = _distinct(labels.counts[classes], shots + queries, generator)
    else:
        place = apart(labels, labels.groups.cpu(), classes, shots, queries, generator)
    rows = labels.rows[labels.starts[classes].unsqueeze(-1) + place]
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
    """Draw ``n`` tasks whose ways and shots vary, uniformly within ``ways`` and ``shots`` (both ends included).

    Tasks of one shape are kept together, so that each group runs as one batch; the groups together are the set.
    """
    shapes = [(way, shot) for way in ways for shot in shots]
    counts = torch.bincount(torch.randint(len(shapes), (n,), generator=generator), minlength=len(shapes)).tolist()
    return [
        draw_tasks(labels, count, ways=way, shots=shot, queries=queries, generator=generator)
        for (way, shot), count in zip(shapes, counts, strict=True)
        if count
    ]


def usable_classes(labels: Labels, ways: int, shots: int, queries: int) -> Int[Tensor, " n"]:
    """The classes with enough images for such tasks.

    Raises:
        DataError: they are fewer than ``ways``; it names the smallest class.
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
    """A ``SmallClassWarning`` if some classes cannot give such tasks: how many, what they are left out of, and one."""
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
    """Of the classes that are not ``able`` the smallest, and what it has."""
    worst = int(labels.counts.masked_fill(able, len(labels) + 1).argmin())
    has = f"{labels.names[worst]!r} has {int(labels.counts[worst])}"
    if labels.counts[worst] < need or labels.groups is None:
        return has
    kinds = len(labels.groups.cpu()[labels.classes.cpu() == worst].unique())
    return f"{has}, of {kinds} group{'s' * (kinds > 1)}, none of which may be support and query"


def _randint(below: Tensor, generator: Generator) -> Tensor:
    """An integer from 0 to ``below - 1`` for each element. The modulo's bias is under 2**-40 for any real data set."""
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
