"""Tasks with unbalanced queries: how many queries a class has follows a Dirichlet distribution."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from metarep.data.labels import Labels
from metarep.data.task_index import TaskIndex
from metarep.data.tasks import distinct, tasks_of, usable_classes
from metarep.errors import DataError, MetarepError

ALPHA = 2  # Veilleux et al.


def draw_unbalanced_tasks(
    labels: Labels, n: int, *, ways: int, shots: int, queries: int, generator: Generator, alpha: int = ALPHA
) -> TaskIndex:
    """Draw tasks as :func:`metarep.data.tasks.draw_tasks` does, with another number of queries for each class.

    The shares of the classes among the queries of a task are drawn from a symmetric Dirichlet distribution; the support
    stays balanced. Veilleux, Boudiaf, Piantanida, Ben Ayed, Realistic Evaluation of Transductive Few-Shot Learning,
    2021, take ``alpha=2``. A class may have no query at all, or all of them.

    Args:
        labels: the classes to draw from. Each class that is drawn has ``shots + ways * queries`` images, so that its
            images do not limit its share.
        n: the number of tasks.
        ways: the number of classes of a task.
        shots: support images of each class.
        queries: query images of a class on average; a task has ``ways * queries``.
        generator: a CPU generator; the same state gives the same tasks on every machine.
        alpha: how equal the shares are: 1 makes all shares equally likely, and large values make them equal.

    Raises:
        DataError: fewer than ``ways`` classes have enough images.
        MetarepError: ``alpha`` is below 1, or a task would have no way, shot or query.

    >>> labels = Labels.of([c for c in "abcdef" for _ in range(20)])
    >>> tasks = draw_unbalanced_tasks(
    ...     labels, 2, ways=3, shots=1, queries=4, generator=torch.Generator().manual_seed(0)
    ... )
    >>> tasks.query_y[0].bincount(minlength=3), tasks.queries
    (tensor([4, 2, 6]), 4)
    """
    if not min(n, ways, shots, queries, alpha) >= 1 or alpha != int(alpha):
        raise MetarepError(
            f"unbalanced tasks need at least 1 way, shot and query and an alpha of at least 1, not ways={ways}, "
            f"shots={shots}, queries={queries}, n={n}, alpha={alpha}"
        )
    total = ways * queries
    if len(labels.usable(shots, total)) < ways:
        _refuse_small_classes(labels, ways, shots, total)
    usable = usable_classes(labels, ways, shots, total)
    classes = usable[distinct(torch.full((n,), len(usable)), ways, generator)]
    counts = whole_shares(dirichlet(n, ways, alpha, generator), total)
    full = tasks_of(labels, classes, shots=shots, queries=total, generator=generator)
    kept = torch.arange(total).expand(n, ways, total) < counts.unsqueeze(-1)
    query = full.query.view(n, ways, total)[kept].view(n, total)
    query_y = full.query_y.view(n, ways, total)[kept].view(n, total)
    groups = full.groups
    if groups is not None:
        own = groups[:, ways * shots :].view(n, ways, total)[kept].view(n, total)
        groups = torch.cat([groups[:, : ways * shots], own], 1)
    return replace(full, query=query, query_y=query_y, groups=groups)


def _refuse_small_classes(labels: Labels, ways: int, shots: int, total: int) -> None:
    """Raise an error that says how many queries a class could have, if the sizes of the classes are the reason."""
    most = int(labels.counts.sort(descending=True).values[:ways][-1]) - shots if len(labels.counts) >= ways else total
    if most < total:
        raise DataError(
            f"a class of an unbalanced task may get all {total} queries, and the largest {ways} classes have "
            f"{most + shots} images or more; "
            + (f"take at most {most // ways} queries a class" if most >= ways else "take fewer ways or shots")
        )


def dirichlet(n: int, ways: int, alpha: int, generator: Generator) -> Float[Tensor, "n ways"]:
    """Draw shares from a symmetric Dirichlet distribution, from sums of ``alpha`` exponential numbers for each share.

    >>> dirichlet(2, 3, 2, torch.Generator().manual_seed(0)).sum(1)
    tensor([1.0000, 1.0000], dtype=torch.float64)
    """
    draw = torch.rand(n, ways, alpha, generator=generator, dtype=torch.float64)
    gammas = -(1 - draw).log().sum(-1) + 1e-12  # 1 - draw is never 0
    return gammas / gammas.sum(-1, keepdim=True)


def whole_shares(shares: Float[Tensor, "n ways"], total: int) -> Int[Tensor, "n ways"]:
    """Whole numbers that add up to ``total``, by the method of the largest remainders.

    Args:
        shares: rows that add up to 1.
        total: the sum of each row that is returned.

    >>> whole_shares(torch.tensor([[0.5, 0.26, 0.24]], dtype=torch.float64), 10)
    tensor([[5, 3, 2]])
    """
    exact = shares * total
    counts = exact.floor().long()
    left = total - counts.sum(-1, keepdim=True)
    rank = (exact - counts).argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    return counts + (rank < left).long()
