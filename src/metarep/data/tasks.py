"""Draw few-shot tasks at random from labels."""

import functools
import warnings

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Generator, Tensor

from metarep.data.groups import apart
from metarep.data.labels import Labels
from metarep.data.task_index import TaskIndex, Tasks
from metarep.errors import DataError, MetarepError, counted

BLOCK = 1 << 14  # sets of integers that are chosen at once, in little memory
FEW = 1000  # integers that Python draws faster one by one than numpy at once

__all__ = [
    "SmallClassWarning",
    "TaskIndex",
    "Tasks",
    "draw_tasks",
    "draw_varied_tasks",
    "tasks_of",
    "usable_classes",
    "warn_of_small_classes",
]


class SmallClassWarning(UserWarning):
    """Warns that some classes have too few images for the tasks asked for, and are left out."""


def draw_tasks(labels: Labels, n: int, *, ways: int, shots: int, queries: int, generator: Generator) -> TaskIndex:
    """Draw ``n`` tasks at random, classes and images both without replacement.

    Every set of classes, and within a class every set of images, is equally likely. Each task numbers its classes in
    a random order. A loop that needs one task at a time should draw many at once and take them one by one, by
    ``draw_tasks(labels, 1000, ...).chunks(1)``: that costs a tenth of drawing each alone. Classes that cannot give
    ``shots + queries`` images are never drawn. Where labels have groups (typefaces), the support and query images of
    a class come from different groups. Where each image is a class of its own (``labels.kind`` is ``instances``), it
    is drawn ``shots + queries`` times. Its samples are views, and the caller makes them by augmentation.

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
    check_tasks(n, ways, shots, queries)
    usable = usable_classes(labels, ways, shots, queries)
    classes = _at(usable, distinct(torch.full((n,), len(usable)), ways, generator))
    return tasks_of(labels, classes, shots=shots, queries=queries, generator=generator)


def check_tasks(n: int, ways: int, shots: int, queries: int) -> None:
    """Refuse numbers of which no task can be drawn.

    Raises:
        MetarepError: there would be no task, way or shot, or less than no query.
    """
    if min(n, ways, shots) < 1 or queries < 0:
        raise MetarepError(
            f"tasks need at least 1 way and 1 shot, not ways={ways}, shots={shots}, queries={queries}, n={n}"
        )


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
        position = distinct(_at(labels.counts, classes), shots + queries, generator)
    else:
        position = apart(labels, labels.groups.cpu(), classes, shots, queries, generator)
    position += _at(labels.starts, classes).unsqueeze(-1)
    rows = _at(labels.rows, position)
    del position  # a million tasks are gigabytes
    support_y, query_y = (_numbers(ways, each).clone().expand(n, -1) for each in (shots, queries))
    support, query = rows[..., :shots].reshape(n, -1), rows[..., shots:].reshape(n, -1)
    groups = None
    if labels.groups is not None and labels.kind != "instances":
        groups = labels.groups.cpu()[torch.cat([support, query], dim=1)]
    return TaskIndex(support, query, support_y, query_y, classes, ways, groups)


def _at(table: Int[Tensor, " n"], index: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """``table[index]`` by numpy, which takes a quarter of torch's time for the few numbers of one task."""
    return torch.from_numpy(table.numpy()[index.numpy()])


@functools.lru_cache(256)
def _numbers(ways: int, each: int) -> Int[Tensor, " n"]:
    """The class of each row of a task: 0 for the rows of the first class, and so on."""
    return torch.arange(ways).repeat_interleave(each)


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
    usable = labels.usable(shots, queries)
    if len(usable) < ways:
        able, need = labels.can_give(shots, queries), 1 if labels.kind == "instances" else shots + queries
        shape = f"{ways}-way {_shape(shots, queries)}" if queries else _shape(shots, queries)
        want = f"{shape} need {counted(ways, 'class')} of at least {counted(need, 'image')}"
        if labels.kind == "clusters":
            raise DataError(
                f"{want}; {len(usable)} of the {len(labels.names)} clusters have as many. Use fewer clusters, ways, "
                "shots or queries"
            )
        if len(labels.names) < ways:
            raise DataError(
                f"{want}; the data has {counted(len(labels.names), 'class')} (a folder is divided by class; the split "
                "'all' has every one). Use fewer ways, or add classes"
            )
        raise DataError(
            f"{want}; {len(usable)} of the {len(labels.names)} classes have as many, and "
            f"{_smallest(labels, able, need)}. Use fewer shots{' or queries' * (queries > 0)}, or add images"
        )
    return usable


def warn_of_small_classes(labels: Labels, able: Bool[Tensor, " n"], what: str, shots: int, queries: int) -> None:
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
            f"{_shape(shots, queries)} need {need} images of a class, and "
            f"{_smallest(labels, able, need)}",
            SmallClassWarning,
            stacklevel=3,
        )


def distinct(population: Int[Tensor, "*shape"], k: int, generator: Generator) -> Int[Tensor, "*shape k"]:
    """``k`` distinct integers below each ``population``, in random order.

    Floyd's algorithm, one step a draw for all tasks at once: it costs k**2 comparisons whatever the population, where
    sorting random keys would cost the whole population for each task.
    """
    if population.numel() * k <= FEW:
        return _few_distinct(population, k, generator)
    sizes = population.reshape(-1)
    drawn = torch.randint(2**62, (k, len(sizes)), generator=generator)
    out = torch.empty(len(sizes), k, dtype=torch.long)
    for start in range(0, len(sizes), BLOCK):
        block = slice(start, start + BLOCK)
        lasts = sizes[block] - k + torch.arange(k).unsqueeze(1)
        picks, lasts = (drawn[:, block] % (lasts + 1)).numpy(), lasts.numpy()  # a bias of less than 2**-40
        chosen = np.empty((lasts.shape[1], k), np.int64)  # numpy: so small operations take torch five times as long
        for i in range(k):
            taken = (chosen[:, :i] == picks[i][:, None]).any(-1)
            chosen[:, i] = np.where(taken, lasts[i], picks[i])
        order = torch.rand(chosen.shape, generator=generator).argsort(-1)
        torch.gather(torch.from_numpy(chosen), -1, order, out=out[block])
    return out.view(*population.shape, k)


def _few_distinct(population: Int[Tensor, "*shape"], k: int, generator: Generator) -> Int[Tensor, "*shape k"]:
    """Draw the integers of :func:`distinct` one by one, which is faster than tensor operations if there are few."""
    n = population.numel()
    numbers = torch.randint(2**62, (k, n), generator=generator).tolist()
    keys = torch.rand(n, k, generator=generator).tolist()
    rows = []
    for row, size in enumerate(population.flatten().tolist()):
        chosen: dict[int, None] = {}  # in order
        for below, draws in enumerate(numbers, size - k + 1):
            pick = draws[row] % below
            chosen[below - 1 if pick in chosen else pick] = None
        rows.append([pick for _, pick in sorted(zip(keys[row], chosen, strict=True))])
    return torch.from_numpy(np.array(rows, np.int64)).view(*population.shape, k)


def _shape(shots: int, queries: int) -> str:
    """The shape of what is drawn, for messages: tasks, or batches of labelled images, which have no queries."""
    return f"{shots}-shot tasks with {queries} queries" if queries else f"batches with {shots} images a class"


def _smallest(labels: Labels, able: Tensor, need: int) -> str:
    """The part of a message on the smallest class that is not ``able``: its name and its number of images or groups."""
    worst = int(labels.counts.masked_fill(able, len(labels) + 1).argmin())
    has = f"{labels.names[worst]!r} has {int(labels.counts[worst])}"
    if labels.counts[worst] < need or labels.groups is None:
        return has
    kinds = len(labels.groups.cpu()[labels.classes.cpu() == worst].unique())
    return f"{has}, of {counted(kinds, 'group')}; support and query of a class must come from different groups"
