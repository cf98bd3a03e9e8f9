"""k-means clustering of features, for pseudo-labels. It runs on the CPU, where sums have one fixed order."""

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

ROUNDS = 20  # of Lloyd's algorithm, at most
SAMPLE = 2**15  # rows from which the first centres are drawn; each centre costs one pass over them
CHUNK = 2**13  # rows whose distances to all centres are in memory at once


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
    """Draw the first centres from a sample of the rows by k-means++."""
    some = rows[torch.randperm(len(rows), generator=generator)[: max(SAMPLE, count)]]
    squares = some.square().sum(1)
    chosen = [0]  # the sample is in random order
    distance = torch.full_like(squares, torch.inf)
    for _ in range(count - 1):
        last = some[chosen[-1]]
        distance = torch.minimum(distance, (squares - 2 * (some @ last) + last.square().sum()).clamp_min(0))
        distance[chosen[-1]] = 0  # a row is never drawn twice; rounding could leave more than 0
        total = distance.double().cumsum(0)
        threshold = torch.rand((), dtype=torch.float64, generator=generator) * total[-1]
        chosen.append(min(int(torch.searchsorted(total, threshold, right=True)), len(some) - 1))
    return some[chosen]


def _nearest(rows: Tensor, centres: Tensor) -> Int[Tensor, " n"]:
    """The nearest centre of each row."""
    half = centres.square().sum(1) / 2  # |x - c|**2 is least where x @ c - |c|**2 / 2 is largest
    return torch.cat([(part @ centres.T - half).argmax(1) for part in rows.split(CHUNK)])
