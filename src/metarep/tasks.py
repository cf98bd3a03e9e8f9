"""Tasks as index tensors: who is support, who is query, and no pixels."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Int, Shaped
from torch import Generator, Tensor

from metarep.errors import DataError, MetarepError
from metarep.labels import Labels

REDRAWS = 100  # of the order of a class's groups, before it counts as one that cannot be divided


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
    """

    support: Int[Tensor, "task support"]
    query: Int[Tensor, "task query"]
    support_y: Int[Tensor, "task support"]
    query_y: Int[Tensor, "task query"]
    classes: Int[Tensor, "task ways"]
    ways: int

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
        return TaskIndex(self.support[part], self.query[part], *labels, self.ways)

    def compact(self) -> "tuple[Int[Tensor, ' n'], TaskIndex]":
        """The distinct rows that these tasks use, and the tasks as rows of that list: each image is encoded once."""
        both = torch.cat([self.support, self.query], dim=1)
        used, place = torch.unique(both, return_inverse=True)
        support, query = place.split([self.support.shape[1], self.query.shape[1]], dim=1)
        return used, TaskIndex(support, query, self.support_y, self.query_y, self.classes, self.ways)

    def turned(self, turns: int) -> "TaskIndex":
        """The same images ``turns`` times over, each time with the next ones of every class as support.

        More tasks from the same encoded images: the encoder is run once, the comparison of features costs next to
        nothing.
        """
        n, ways, shots = len(self), self.ways, self.shots
        members = torch.cat([self.support.view(n, ways, -1), self.query.view(n, ways, -1)], dim=-1)
        every = torch.cat([members.roll(-shots * turn, dims=-1) for turn in range(turns)])
        support, query = every[..., :shots].reshape(len(every), -1), every[..., shots:].reshape(len(every), -1)
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
    tasks. Classes with fewer than ``shots + queries`` images are never drawn. Where labels have groups (typefaces),
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
        place = _apart(labels, labels.groups.cpu(), classes, shots, queries, generator)
    rows = labels.rows[labels.starts[classes].unsqueeze(-1) + place]
    support_y = torch.arange(ways).repeat_interleave(shots).expand(n, -1)
    query_y = torch.arange(ways).repeat_interleave(queries).expand(n, -1)
    support, query = rows[..., :shots].reshape(n, -1), rows[..., shots:].reshape(n, -1)
    return TaskIndex(support, query, support_y, query_y, classes, ways)


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
    usable = (labels.counts >= need).nonzero().squeeze(1)
    if len(usable) < ways:
        want = f"{ways}-way {shots}-shot tasks with {queries} queries need {ways} classes of at least {need} images"
        if labels.kind == "clusters":
            raise DataError(
                f"{want}; {len(usable)} of the {len(labels.names)} clusters have as many. Use fewer clusters, ways, "
                "shots or queries"
            )
        if len(labels.names) < ways:
            raise DataError(f"{want}; there are {len(labels.names)} classes. Use fewer ways, or add classes")
        smallest = int(labels.counts.argmin())
        raise DataError(
            f"{want}; {len(usable)} of the {len(labels.names)} classes have as many, and {labels.names[smallest]!r} "
            f"has {int(labels.counts[smallest])}. Use fewer shots or queries, or add images"
        )
    return usable


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


def _apart(labels: Labels, groups: Tensor, classes: Tensor, shots: int, queries: int, generator: Generator) -> Tensor:
    """Places within each class for support, then query, whose groups do not meet.

    The groups of a class are put in random order and cut once, as near the middle as leaves enough images on both
    sides; support comes from the first part and queries from the second. An order that cannot be cut so is redrawn.
    """
    size = int(labels.counts.max())
    slot = torch.arange(size)
    real = slot < labels.counts[classes].unsqueeze(-1)  # task ways size
    within = (labels.starts[classes].unsqueeze(-1) + slot).clamp_max(len(labels.rows) - 1)
    group = groups[labels.rows[within]]
    kinds = int(group.max()) + 1
    onehot = torch.zeros(*group.shape[:2], kinds, dtype=torch.long).scatter_add_(-1, group, real.long())
    order = torch.rand(onehot.shape, generator=generator)
    rank, fits = _cuts(onehot, order, shots, queries)
    for _ in range(REDRAWS):
        if fits.any(-1).all():
            break
        again = torch.rand(onehot.shape, generator=generator)
        order = torch.where(fits.any(-1, keepdim=True), order, again)
        rank, fits = _cuts(onehot, order, shots, queries)
    if not fits.any(-1).all():
        bad = int(classes[~fits.any(-1)][0])
        raise DataError(
            f"class {labels.names[bad]!r} cannot give {shots} support and {queries} query images from different "
            "groups; use fewer shots or queries"
        )
    many = (onehot > 0).sum(-1, keepdim=True)
    distance = (torch.arange(1, kinds + 1) - many / 2).abs().masked_fill(~fits, float("inf"))
    cut = distance.argmin(-1, keepdim=True)  # the last group of the support side
    position = torch.empty_like(rank).scatter_(-1, rank, torch.arange(kinds).expand_as(rank))
    first = position.gather(-1, group) <= cut
    key = torch.rand(group.shape, generator=generator)
    support = key.masked_fill(~(real & first), 2).argsort(-1)[..., :shots]
    query = key.masked_fill(~(real & ~first), 2).argsort(-1)[..., :queries]
    return torch.cat([support, query], dim=-1)


def _cuts(onehot: Tensor, order: Tensor, shots: int, queries: int) -> tuple[Tensor, Tensor]:
    """The groups of each class in this order, and after which of them a cut leaves enough images on both sides."""
    rank = order.masked_fill(onehot == 0, 2).argsort(-1)
    ordered = onehot.gather(-1, rank).cumsum(-1)  # images in the first 1, 2, ... groups
    return rank, (ordered >= shots) & (ordered[..., -1:] - ordered >= queries)
