"""Tasks whose classes are of one superclass, such as the characters of one alphabet. They are hard to tell apart."""

from functools import lru_cache

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from metarep.data.labels import Labels
from metarep.data.task_index import TaskIndex
from metarep.data.tasks import check_tasks, tasks_of, usable_classes
from metarep.errors import DataError, counted

KEYS = 10_000_000  # random numbers that are drawn at once


def superclasses(labels: Labels) -> Int[Tensor, " ways"]:
    """The superclass of each class: the part of its name before the first slash, numbered in sorted order.

    Args:
        labels: classes such as ``Greek/character01`` or ``bird/robin``.

    Raises:
        DataError: a name has no slash.

    >>> superclasses(Labels.of(["bird/robin", "bird/wren", "cat/lion"]))
    tensor([0, 0, 1])
    """
    return _numbered(labels.names)


@lru_cache(8)
def _numbered(names: tuple[str, ...]) -> Int[Tensor, " ways"]:
    """Compute :func:`superclasses`. The result is cached, because every training step needs it for the same names."""
    whole = next((name for name in names if "/" not in name), None)
    if whole is not None:
        raise DataError(
            "a superclass is the part of a class name before its first slash, as in bird/robin, and there is a class "
            f"called {whole!r}"
        )
    heads = [name.partition("/")[0] for name in names]
    number = {head: i for i, head in enumerate(sorted(set(heads)))}
    return torch.tensor([number[head] for head in heads])


def draw_tasks_within(
    labels: Labels, n: int, *, ways: int, shots: int, queries: int, generator: Generator, fill: bool = False
) -> TaskIndex:
    """Draw tasks whose classes share a superclass; the images as :func:`metarep.data.tasks.draw_tasks` does.

    Lake, Salakhutdinov, Tenenbaum, Human-level Concept Learning through Probabilistic Program Induction, 2015, test
    within alphabets, which is harder than among characters of all alphabets. A superclass is drawn with a probability
    in proportion to its classes, so every class is equally likely.

    Args:
        labels: the classes to draw from; see :func:`superclasses`.
        n: the number of tasks.
        ways: the number of classes of a task.
        shots, queries: support and query images of each class.
        generator: a CPU generator; the same state gives the same tasks on every machine.
        fill: where a superclass has too few classes, take all of them, and then classes of further superclasses.
            Otherwise such superclasses are left out.

    Raises:
        DataError: no superclass has enough classes, or a class name has no slash.
        MetarepError: a task would have no way or shot.

    >>> labels = Labels.of([name for name in ("a/1", "a/2", "a/3", "b/1", "b/2") for _ in range(4)])
    >>> tasks = draw_tasks_within(labels, 9, ways=3, shots=1, queries=2, generator=torch.Generator().manual_seed(0))
    >>> sorted({labels.names[row] for row in tasks.classes.flatten().tolist()})
    ['a/1', 'a/2', 'a/3']
    """
    check_tasks(n, ways, shots, queries)
    usable = usable_classes(labels, ways, shots, queries)
    own = superclasses(labels)[usable]
    sizes = own.bincount()
    if not fill:
        large = sizes[own] >= ways
        if not large.any():
            raise DataError(
                f"{ways}-way tasks within superclasses need one of at least {ways} classes that are large enough; "
                f"the largest has {counted(int(sizes.max()), 'class', 'classes')}. Use fewer ways, shots or queries"
            )
        usable, own = usable[large], own[large]
    most = max(1, KEYS // len(usable))
    chosen = torch.cat([_order(own, sizes, len(part), ways, generator) for part in torch.arange(n).split(most)])
    return tasks_of(labels, usable[chosen], shots=shots, queries=queries, generator=generator)


def _order(
    own: Int[Tensor, " c"], sizes: Int[Tensor, " s"], n: int, ways: int, generator: Generator
) -> Int[Tensor, "n ways"]:
    """For each of ``n`` tasks the first ``ways`` classes in a random order that keeps superclasses together.

    Superclasses are ordered by times that are exponentially distributed with their sizes as rates. So the first is
    drawn with a probability in proportion to its size.
    """
    clock = torch.rand(n, len(sizes), generator=generator, dtype=torch.float64)
    times = -(1 - clock).log() / sizes
    rank = times.argsort(1).argsort(1)
    keys = rank[:, own] + torch.rand(n, len(own), generator=generator, dtype=torch.float64)
    return keys.topk(ways, largest=False).indices
