"""Near pairs of vectors: all pairs above a cosine threshold, or the groups that such pairs connect. Both are exact."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

ROWS, COLUMNS, FIRST = 1024, 4096, 64  # of a block of cosines, 16 MB; the first block has fewer rows
STRIP = 64  # columns that share a maximum: most strips hold nothing that is near enough, and are skipped
SLACK = 1e-6  # rounding error of a cosine in float32
SHORT = 128  # vectors up to this length are compared directly; longer ones are compared by a shorter bound first
WIDTHS = (64, 128, 256, 512)  # lengths of the bound that are tried
SAMPLE = 1024  # vectors by which the bound is chosen

Pairs = tuple[np.ndarray, np.ndarray]
Watch = Callable[[int], None]


class Groups:
    """Disjoint groups of ``n`` items. Groups can be joined and never split.

    Args:
        n: the number of items; at first each is a group of its own.

    Attributes:
        of: the group of each item, named by the first item of the group.

    >>> groups = Groups(4)
    >>> groups.join(np.array([3, 1]), np.array([1, 2]))
    >>> groups.of.tolist()
    [0, 1, 1, 1]
    """

    def __init__(self, n: int) -> None:
        self.of = np.arange(n)

    def join(self, one: np.ndarray, other: np.ndarray) -> None:
        """Join the groups of the two items of each pair.

        Args:
            one, other: the items of each pair.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        one, other = self.of[one], self.of[other]
        apart = one != other
        if not apart.any():
            return
        names, nodes = np.unique(np.concatenate([one[apart], other[apart]]), return_inverse=True)
        edges = len(nodes) // 2
        graph = coo_array((np.ones(edges, bool), (nodes[:edges], nodes[edges:])), shape=(len(names), len(names)))
        component = connected_components(graph, directed=False)[1]
        first = np.full(component.max() + 1, len(self.of))
        np.minimum.at(first, component, names)
        renamed = np.arange(len(self.of))
        renamed[names] = first[component]
        self.of = renamed[self.of]


def linked(
    rows: Float[Tensor, "n dim"], threshold: float, groups: Groups | None = None, watch: Watch | None = None
) -> Groups:
    """Group unit vectors by single linkage: pairs whose cosine is at least the threshold are in one group.

    The result is exact. Every vector is compared with every other one, except where both are in one group already. So
    many vectors that are all alike cost little. Apart from the vectors and their bound, it needs a few blocks of
    16 MB.

    Args:
        rows: vectors whose norm is 1 or 0.
        threshold: the least cosine, -1 to 1.
        groups: groups to start from; they are changed in place. None for each vector by itself.
        watch: called with the number of vectors that are done.

    >>> linked(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]]), 0.7).of.tolist()
    [0, 1, 0]
    """
    groups = groups or Groups(len(rows))
    for one, other, _ in near_pairs(rows, threshold, groups=groups, watch=watch):
        groups.join(one, other)
    return groups


def near_pairs(
    rows: Float[Tensor, "n dim"],
    threshold: float,
    partners: Float[Tensor, "n dim"] | None = None,
    *,
    groups: Groups | None = None,
    most: int = 0,
    watch: Watch | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the pairs of different items whose cosine is at least the threshold, some pairs at a time.

    Args:
        rows: vectors whose norm is 1 or 0.
        threshold: the least cosine, -1 to 1.
        partners: the vectors of the second items of pairs, such as those of mirrored pictures. The cosine of
            ``rows[i]`` and ``partners[j]`` must equal that of ``rows[j]`` and ``partners[i]``. None for ``rows``.
        groups: pairs that are in one group already are left out. The caller joins the pairs of each part before it
            takes the next.
        most: yield only this many pairs of a row in each block of 4,096 others, the nearest; 0 for all.
        watch: called with the number of rows that are done.

    Yields:
        The first items of some pairs, their second items, and their cosines.

    >>> [parts] = near_pairs(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]]), 0.7)
    >>> [part.tolist() for part in parts[:2]]
    [[0], [2]]
    """
    if not len(rows):
        return
    full = rows if partners is None else partners
    left, right, bound = _bounded(rows, full, threshold)
    exact = left.shape[1] == rows.shape[1]
    order, done, size = np.arange(len(rows)), 0, FIRST
    room = torch.empty(ROWS * COLUMNS)
    while done < len(rows):
        firsts, rest = order[done : done + size], order[done:]
        block = left[firsts]
        for start in range(0, len(rest), COLUMNS):
            seconds = rest[start : start + COLUMNS]
            if groups is not None and _one_group(groups.of, firsts, seconds):
                continue
            shape = len(firsts), len(seconds)
            scores = torch.mm(block, right[seconds].T, out=room[: shape[0] * shape[1]].view(shape))
            row, column = _above(scores, bound, most if exact else 0)
            one, other = firsts[row], seconds[column]
            keep = one != other if start else row < column  # the first columns are the rows themselves
            if groups is not None:
                keep &= groups.of[one] != groups.of[other]
            one, other = one[keep], other[keep]
            if not len(one):
                continue
            if exact:
                yield one, other, scores[row[keep], column[keep]].numpy()
                continue
            cosines = _products(rows, full, one, other)
            near = cosines >= threshold - SLACK
            if near.any():
                yield one[near], other[near], cosines[near]
        done += len(firsts)
        size = min(ROWS, 2 * size)
        if groups is not None and (size < ROWS or done // ROWS % 16 == 0):
            # With the items of a group side by side, whole blocks of one group can be skipped.
            order[done:] = order[done:][np.argsort(groups.of[order[done:]], kind="stable")]
        if watch:
            watch(done)


def _one_group(of: np.ndarray, firsts: np.ndarray, seconds: np.ndarray) -> bool:
    """Whether all of these items are in one group."""
    group = of[firsts[0]]
    return bool((of[seconds] == group).all() and (of[firsts] == group).all())


def _above(scores: Float[Tensor, "n m"], bound: float, most: int) -> Pairs:
    """The rows and columns of the scores that are at least the bound."""
    if most:
        best, columns = scores.topk(min(most + 1, scores.shape[1]), dim=1)  # one more, for the row itself
        row, rank = (best >= bound).nonzero(as_tuple=True)
        return row.numpy(), columns[row, rank].numpy()
    whole = scores.shape[1] // STRIP * STRIP
    strips = scores[:, :whole].unflatten(1, (-1, STRIP))
    if whole:
        row, strip = (strips.amax(-1) >= bound).nonzero(as_tuple=True)
    else:
        row = strip = torch.empty(0, dtype=torch.int64)
    hit, offset = (strips[row, strip] >= bound).nonzero(as_tuple=True)
    last_row, last_column = (scores[:, whole:] >= bound).nonzero(as_tuple=True)  # fewer columns than a strip
    rows = torch.cat([row[hit], last_row])
    return rows.numpy(), torch.cat([strip[hit] * STRIP + offset, last_column + whole]).numpy()


def _products(rows: Tensor, partners: Tensor, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The cosines of pairs: by one matrix product if it has few other cells than the pairs, otherwise pair by pair."""
    left, at_left = np.unique(one, return_inverse=True)
    right, at_right = np.unique(other, return_inverse=True)
    if 4 * len(one) > len(left) * len(right) // 8:
        return (rows[left] @ partners[right].T)[at_left, at_right].numpy()
    cosines = [(rows[a] * partners[b]).sum(1) for a, b in zip(_split(one), _split(other), strict=True)]
    return torch.cat(cosines).numpy()


def _split(values: np.ndarray, size: int = 8192) -> list[np.ndarray]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def _bounded(rows: Tensor, partners: Tensor, threshold: float) -> tuple[Tensor, Tensor, float]:
    """Shorten the vectors so that the product of two short vectors is an upper bound of the cosine of the long ones.

    The product is exact along the directions of largest variance. Of the rest of a vector only the norm is kept, and
    the product of two rests is at most the product of their norms. The number of directions is the smallest at which
    few pairs of a sample pass the bound. If there is no such number, the vectors are returned unchanged.

    Returns:
        The short ``rows``, the short ``partners``, and the least product of a pair that may be near.
    """
    n, dim = rows.shape
    least = threshold - SLACK
    if dim <= SHORT or n < 2 * SAMPLE:
        return rows, partners, least
    sample = rows[:: max(1, n // SAMPLE)][:SAMPLE]
    mean = rows.mean(0)
    strongest = torch.linalg.eigh((sample - mean) @ (sample - mean).T)[1].flip(1)[:, : WIDTHS[-1]]
    directions = torch.linalg.qr((sample - mean).T @ strongest)[0].T
    near = float((sample @ sample.T >= least).float().mean())
    for width in WIDTHS:
        if width >= dim // 2:
            break
        basis = directions[:width]
        some = _shortened(sample, mean, basis)
        passed = float((_left(some) @ _right(some).T >= least - 1e-5).float().mean())
        if passed < 1.5 * near + 0.5 / SAMPLE:
            short = torch.cat([_shortened(some, mean, basis) for some in rows.split(8192)])
            right = short
            if partners is not rows:
                right = torch.cat([_shortened(some, mean, basis) for some in partners.split(8192)])
            return _left(short), _right(right), least - 1e-5
    return rows, partners, least


def _shortened(rows: Tensor, mean: Tensor, basis: Tensor) -> Tensor:
    """Project vectors on the basis, and append the norm of the rest and a term that corrects for the mean.

    The mean is subtracted before projecting. The correction turns products of centred vectors into cosines:
    ``2 x.y = |x|^2 + |y|^2 - |x - y|^2``, and distances do not change when the mean is subtracted.
    """
    moved = rows - mean
    short = moved @ basis.T
    squares = moved.square().sum(1, keepdim=True)
    left = (squares - short.square().sum(1, keepdim=True)).clamp_min(0).sqrt()
    return torch.cat([short, left, (rows.square().sum(1, keepdim=True) - squares) / 2], 1)


def _left(short: Tensor) -> Tensor:
    """The left factor of a product that adds the corrections of both vectors; see :func:`_right`."""
    return torch.cat([short, torch.ones(len(short), 1)], 1)


def _right(short: Tensor) -> Tensor:
    """The right factor. Its 1 is multiplied by the correction of the left vector, and its correction by the left 1."""
    return torch.cat([short[:, :-1], torch.ones(len(short), 1), short[:, -1:]], 1)
