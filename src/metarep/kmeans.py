"""k-means on rows of features, for pseudo-classes. It runs on the processor, where its sums have one order."""

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

ROUNDS = 20
SAMPLE = 2**15  # rows among which the first centres are chosen; choosing costs as many passes over them as centres
CHUNK = 2**13  # rows whose distances to all centres are held at a time


def kmeans(rows: Float[Tensor, "n dim"], count: int, generator: Generator) -> Int[Tensor, " n"]:
    """The cluster of each row: at most ``count`` of them, numbered from 0, none empty.

    Lloyd's rounds from the start of Arthur and Vassilvitskii, k-means++: The Advantages of Careful Seeding, 2007 (each
    next centre is drawn with a probability that grows with its squared distance to those there are), on a sample of
    the rows. A cluster that loses all its rows is left out; rows that are all the same are one cluster.

    Args:
        rows: on the processor.
        count: clusters asked for; more than there are rows are no more than there are rows.
        generator: a CPU generator.

    >>> rows = torch.tensor([[0.0, 0.1], [9.0, 9.0], [0.1, 0.0], [9.1, 9.0]])
    >>> found = kmeans(rows, 2, Generator().manual_seed(0)).tolist()
    >>> found[0] == found[2] != found[1] == found[3]
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
    some = rows[torch.randperm(len(rows), generator=generator)[: max(SAMPLE, count)]]
    squares = some.square().sum(1)
    chosen = [0]  # the sample is in random order
    distance = torch.full_like(squares, torch.inf)
    for _ in range(count - 1):
        last = some[chosen[-1]]
        distance = torch.minimum(distance, (squares - 2 * (some @ last) + last.square().sum()).clamp_min(0))
        distance[chosen[-1]] = 0  # never twice, whatever rounding says
        total = distance.double().cumsum(0)
        place = torch.rand((), dtype=torch.float64, generator=generator) * total[-1]
        chosen.append(min(int(torch.searchsorted(total, place, right=True)), len(some) - 1))
    return some[chosen]


def _nearest(rows: Tensor, centres: Tensor) -> Int[Tensor, " n"]:
    half = centres.square().sum(1) / 2  # |x - c|**2 is least where x @ c - |c|**2 / 2 is largest
    return torch.cat([(part @ centres.T - half).argmax(1) for part in rows.split(CHUNK)])
