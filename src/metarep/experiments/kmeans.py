"""k-means clustering of features, for pseudo-labels. It runs on the CPU, where sums have one fixed order."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

ROUNDS = 20  # of Lloyd's algorithm, at most
SAMPLE = 2**15  # rows from which the first centres are drawn; all centres are compared with each of them
CHUNK = 2**18  # distances that are computed at once, so that they stay in the cache of a core
TOGETHER = 64  # centres that are drawn at once, at most


def kmeans(rows: Float[Tensor, "n dim"], count: int, generator: Generator) -> Int[Tensor, " n"]:
    """Cluster rows by Lloyd's algorithm, started by k-means++ on a sample of the rows.

    k-means++ draws each next centre with a probability proportional to the squared distance from the nearest centre
    so far (Arthur and Vassilvitskii, k-means++: The Advantages of Careful Seeding, 2007). A cluster that loses all
    its rows is left out. Rows that are all equal form one cluster.

    Args:
        rows: features, on the CPU.
        count: the number of clusters; at most one for each row is made.
        generator: a CPU generator.

    Returns:
        The cluster of each row. Clusters are numbered from 0, and none is empty.

    >>> rows = torch.tensor([[0.0, 0.1], [9.0, 9.0], [0.1, 0.0], [9.1, 9.0]])
    >>> clusters = kmeans(rows, 2, Generator().manual_seed(0)).tolist()
    >>> clusters[0] == clusters[2] != clusters[1] == clusters[3]
    True
    """
    rows = rows.detach()
    centres = _first_centres(rows, min(count, len(rows)), generator)
    cluster = _nearest(rows, centres)
    for _ in range(ROUNDS):
        sizes = cluster.bincount(minlength=len(centres)).to(rows)
        sums = torch.zeros_like(centres).index_add_(0, cluster, rows)
        centres = torch.where(sizes.unsqueeze(1) > 0, sums / sizes.clamp_min(1).unsqueeze(1), centres)
        before, cluster = cluster, _nearest(rows, centres)
        if torch.equal(before, cluster):
            break
    return torch.unique(cluster, return_inverse=True)[1]


def _first_centres(rows: Tensor, count: int, generator: Generator) -> Float[Tensor, "count dim"]:
    """Draw the first centres from a sample of the rows by k-means++.

    Several candidates are drawn at once, with probabilities by their distances to the centres so far. A candidate is
    then accepted with the probability ``new / old``. Here ``old`` is its squared distance to the nearest centre, and
    ``new`` also counts the candidates accepted before it. This rejection sampling has the distribution of drawing one
    by one, and one matrix product updates the distances for all accepted candidates.
    """
    some = rows[torch.randperm(len(rows), generator=generator)[: max(SAMPLE, count)]]
    squares = some.square().sum(1)
    chosen = torch.zeros(1, dtype=torch.long)  # the sample is in random order
    distance = torch.full_like(squares, torch.inf)
    last = chosen
    while True:
        for start in range(0, len(some), 2**12):
            part = slice(start, start + 2**12)
            apart = torch.addmm(squares[last], some[part], some[last].T, alpha=-2).amin(1).add_(squares[part])
            torch.minimum(distance[part], apart.clamp_min_(0), out=distance[part])
        distance[last] = 0  # a row is never drawn twice; rounding could leave more than 0
        if len(chosen) == count:
            return some[chosen]
        total = distance.double().cumsum(0)
        drawn, chances = torch.rand(2, min(len(chosen), TOGETHER), dtype=torch.float64, generator=generator)
        drawn = torch.searchsorted(total, drawn * total[-1], right=True).clamp_max_(len(some) - 1)
        last = drawn[_staying(some[drawn], distance[drawn], chances)][: count - len(chosen)]
        chosen = torch.cat([chosen, last])


def _staying(candidates: Tensor, before: Tensor, chances: Tensor) -> list[int]:
    """The positions of the accepted candidates, in order. The first candidate is always accepted."""
    among = torch.cdist(candidates, candidates).square().numpy()
    now, least, stay = before.numpy().copy(), (chances * before).numpy(), []
    for i, each in enumerate(least):
        if i == 0 or each < now[i]:
            stay.append(i)
            now = np.minimum(now, among[i])
            now[i] = 0
    return stay


def _nearest(rows: Tensor, centres: Tensor) -> Int[Tensor, " n"]:
    """The nearest centre of each row."""
    half = centres.square().sum(1) / -2  # |x - c|**2 is least where x @ c - |c|**2 / 2 is largest
    parts = rows.split(max(1, CHUNK // len(centres)))
    # numpy's argmax takes a third of the time of torch's
    return torch.from_numpy(np.concatenate([torch.addmm(half, part, centres.T).numpy().argmax(1) for part in parts]))
