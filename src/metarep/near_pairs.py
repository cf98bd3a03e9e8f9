"""Which of many vectors are near: all pairs above a threshold, or the groups that hang together, exactly."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

ROWS, COLUMNS, FIRST = 1024, 4096, 64  # compared at a time: a product of 16 MB
STRIP = 64  # columns that share a maximum: most strips hold nothing that is near enough, and are not looked at
SLACK = 1e-6  # what float32 rounds in a cosine
SHORT = 128  # numbers a vector that are compared directly; longer vectors are compared by a shorter bound first
WIDTHS = (64, 128, 256, 512)  # of the bound
SAMPLE = 1024

Pairs = tuple[np.ndarray, np.ndarray]
Watch = Callable[[int], None]


class Groups:
    """The group of each of ``n`` things, named by its first one; groups are joined, never parted.

    >>> groups = Groups(4)
    >>> groups.join(np.array([3, 1]), np.array([1, 2]))
    >>> groups.of.tolist()
    [0, 1, 1, 1]
    """

    def __init__(self, n: int) -> None:
        self.of = np.arange(n)

    def join(self, one: np.ndarray, other: np.ndarray) -> None:
        """Let the groups of each pair become one."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        one, other = self.of[one], self.of[other]
        apart = one != other
        if not apart.any():
            return
        names, at = np.unique(np.concatenate([one[apart], other[apart]]), return_inverse=True)
        half = len(at) // 2
        graph = coo_array((np.ones(half, bool), (at[:half], at[half:])), shape=(len(names), len(names)))
        parts = connected_components(graph, directed=False)[1]
        first = np.full(parts.max() + 1, len(self.of))
        np.minimum.at(first, parts, names)
        name = np.arange(len(self.of))
        name[names] = first[parts]
        self.of = name[self.of]


def linked(
    rows: Float[Tensor, "n dim"], threshold: float, groups: Groups | None = None, watch: Watch | None = None
) -> Groups:
    """Groups of unit vectors: two of a group are joined by a chain of pairs whose cosine is the threshold or more.

    Exact. Every vector meets every other one unless both are known to be of one group already, so many that are all
    alike cost little. Memory: a few blocks of 16 MB beside the vectors and their bound.

    Args:
        rows: of length 1, or 0.
        threshold: cosine, -1 to 1.
        groups: to go on from; they are changed.
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
    """Pairs of different places with a cosine of the threshold or more, some at a time, and their cosines.

    Args:
        rows: of length 1, or 0.
        threshold: cosine, -1 to 1.
        partners: what each row is for others: its mirror image, say. The cosine of ``rows[i]`` and ``partners[j]``
            must be that of ``rows[j]`` and ``partners[i]``. None for the rows themselves.
        groups: pairs that are of one group by now are left out; join what comes before asking for more.
        most: of the pairs of a row in a block of 4,096 others only so many, the nearest; 0 for all.
        watch: called with the number of rows that are done.
    """
    if not len(rows):
        return
    left, right, bound = _bounded(rows, rows if partners is None else partners, threshold)
    exact = left.shape[1] == rows.shape[1]
    full = rows if partners is None else partners
    order, done, size = np.arange(len(rows)), 0, FIRST
    room = torch.empty(ROWS * COLUMNS)
    while done < len(rows):
        here = order[done : done + size]
        block, rest = left[here], order[done:]
        for start in range(0, len(rest), COLUMNS):
            there = rest[start : start + COLUMNS]
            if groups is not None and _one_group(groups.of, here, there):
                continue
            scores = torch.mm(block, right[there].T, out=room[: len(here) * len(there)].view(len(here), len(there)))
            row, column = _above(scores, bound, most if exact else 0)
            one, other = here[row], there[column]
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
        done += len(here)
        size = min(ROWS, 2 * size)
        if groups is not None and (
            size < ROWS or done // ROWS % 16 == 0
        ):  # what is of one group is passed over at once
            order[done:] = order[done:][np.argsort(groups.of[order[done:]], kind="stable")]
        if watch:
            watch(done)


def _one_group(of: np.ndarray, here: np.ndarray, there: np.ndarray) -> bool:
    name = of[here[0]]
    return bool((of[there] == name).all() and (of[here] == name).all())


def _above(scores: Float[Tensor, "n m"], bound: float, most: int) -> Pairs:
    """Where scores are the bound or more."""
    if most:
        best, at = scores.topk(min(most + 1, scores.shape[1]), dim=1)  # one more: a row may meet itself
        row, place = (best >= bound).nonzero(as_tuple=True)
        return row.numpy(), at[row, place].numpy()
    whole = scores.shape[1] // STRIP * STRIP
    strips = scores[:, :whole].unflatten(1, (-1, STRIP))
    row, strip = (
        (strips.amax(-1) >= bound).nonzero(as_tuple=True) if whole else (torch.empty(0, dtype=torch.int64),) * 2
    )
    hit, place = (strips[row, strip] >= bound).nonzero(as_tuple=True)
    rows, columns = [row[hit]], [strip[hit] * STRIP + place]
    row, place = (scores[:, whole:] >= bound).nonzero(as_tuple=True)
    return torch.cat([*rows, row]).numpy(), torch.cat([*columns, place + whole]).numpy()


def _products(rows: Tensor, partners: Tensor, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cosines of pairs: one by one where they are few, as a matrix where they fill one."""
    left, at_left = np.unique(one, return_inverse=True)
    right, at_right = np.unique(other, return_inverse=True)
    if 4 * len(one) > len(left) * len(right) // 8:
        return (rows[left] @ partners[right].T)[at_left, at_right].numpy()
    found = [(rows[a] * partners[b]).sum(1) for a, b in zip(_split(one), _split(other), strict=True)]
    return torch.cat(found).numpy()


def _split(values: np.ndarray, size: int = 8192) -> list[np.ndarray]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def _bounded(rows: Tensor, partners: Tensor, threshold: float) -> tuple[Tensor, Tensor, float]:
    """Shorter vectors whose product is never below the cosine of the long ones, and the least product to look at.

    Along the directions of largest spread the product is exact; of what is left, only the lengths are known, and two
    vectors of known lengths have at most the product of the lengths. As many directions are taken as make few pairs of
    a sample pass the bound; where none do, the vectors are compared as they are.
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
    """Coordinates along the basis, the length of what is left, and what turns distances from the mean into cosines.

    ``2 x.y = |x|^2 + |y|^2 - |x - y|^2``, and distances do not change when the mean is taken away.
    """
    moved = rows - mean
    short = moved @ basis.T
    squares = moved.square().sum(1, keepdim=True)
    left = (squares - short.square().sum(1, keepdim=True)).clamp_min(0).sqrt()
    return torch.cat([short, left, (rows.square().sum(1, keepdim=True) - squares) / 2], 1)


def _left(short: Tensor) -> Tensor:
    return torch.cat([short, torch.ones(len(short), 1)], 1)


def _right(short: Tensor) -> Tensor:
    return torch.cat([short[:, :-1], torch.ones(len(short), 1), short[:, -1:]], 1)
