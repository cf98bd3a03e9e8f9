"""Folds of cross-validation: which images of a model are left out together."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

MOST = 20  # folds of one partition, at most
REPEATED = 6  # folds in all, at least: a partition into fewer is repeated with another random order
SEVERAL = 200  # with so many images one partition is enough


def deal_folds(
    classes: Int[Tensor, " n"], units: Int[Tensor, " n"] | None = None, *, most: int = MOST
) -> list[Int[Tensor, " _"]]:
    """Divides the images of each class into folds, so that every fold leaves out images of every class.

    Leaving out one image at a time weakens the class of that image alone, so the measured accuracy is too low. With 101
    classes of 2 photographs it was 49 % where 76 % was true. Here each fold leaves out an image of *every* class, which
    measures a model with one image a class less. A class with fewer images than folds leaves out one of them in each
    fold, in turn.

    Args:
        classes: the class index of each image, shape ``(n,)``.
        units: a number for each image, shape ``(n,)``. Images with the same number are copies of each other, and are
            left out together. By default each image is a unit of its own.
        most: the largest number of folds of one partition. A class with more units leaves out several at a time.

    Returns:
        The rows that each fold leaves out, ascending. The same arguments give the same folds. A class with a single
        unit is never left out. If every class has a single unit, the list is empty.

    >>> [fold.tolist() for fold in deal_folds(torch.tensor([0, 0, 0, 1, 1, 1, 2]), most=3)][:3]
    [[2, 5], [0, 4], [1, 3]]
    """
    units = torch.arange(len(classes)) if units is None else units
    generator = Generator().manual_seed(0)
    members = [_units_of((classes == each).nonzero().flatten(), units) for each in classes.unique().tolist()]
    members = [own for own in members if len(own) > 1]
    if not members:
        return []
    count = min(most, max(len(own) for own in members))
    folds: list[Int[Tensor, " _"]] = []
    for _ in range(-(-REPEATED // count) if len(classes) < SEVERAL else 1):
        dealt: list[list[Tensor]] = [[] for _ in range(count)]
        for own in members:
            order = torch.randperm(len(own), generator=generator).tolist()
            for turn in range(max(count, len(own))):
                dealt[turn % count].append(own[order[turn % len(own)]])
        folds += [torch.cat(rows).sort().values for rows in dealt]
    return folds


def images_left(folds: Sequence[Int[Tensor, " _"]], classes: Int[Tensor, " n"], ways: int) -> Float[Tensor, " ways"]:
    """Returns the number of images that each class keeps when a fold is left out, the geometric mean over the folds.

    >>> images_left([torch.tensor([0, 3]), torch.tensor([1])], torch.tensor([0, 0, 0, 1, 1]), 2).round(decimals=2)
    tensor([2.0000, 1.4100])
    """
    counts = classes.bincount(minlength=ways)
    kept = torch.stack([counts - classes[fold].bincount(minlength=ways) for fold in folds])
    return kept.log().mean(0).exp()


def deal_to_one(
    classes: Int[Tensor, " n"], units: Int[Tensor, " n"], *, most: int = MOST
) -> list[tuple[int, Int[Tensor, " _"]]]:
    """Leaves one image of a class, for classes of several: what a class of a single image would be like.

    Args:
        classes: the class index of each image, shape ``(n,)``.
        units: see :func:`deal_folds`. Classes of a single unit are passed over.
        most: the largest number of pairs.

    Returns:
        Pairs of the row that stays and the rows that are left out, which are the others of its class. With few classes
        each occurs several times, with another image that stays. The same arguments give the same pairs.

    >>> classes = torch.tensor([0, 0, 1, 0])
    >>> [(kept, out.tolist()) for kept, out in deal_to_one(classes, torch.arange(4), most=2)]
    [(3, [0, 1]), (0, [1, 3])]
    """
    generator = Generator().manual_seed(0)
    members = [(classes == each).nonzero().flatten() for each in classes.unique().tolist()]
    members = [own[torch.randperm(len(own), generator=generator)] for own in members if len(units[own].unique()) > 1]
    members = [members[i] for i in torch.randperm(len(members), generator=generator).tolist()]
    longest = max((len(own) for own in members), default=0)
    pairs = [(own, turn) for turn in range(longest) for own in members if turn < len(own)][:most]
    return [(int(own[turn]), own[own != own[turn]].sort().values) for own, turn in pairs]


def _units_of(rows: Int[Tensor, " m"], units: Int[Tensor, " n"]) -> list[Int[Tensor, " _"]]:
    """Returns the rows of one class, one tensor for each unit."""
    own = units[rows]
    return [rows[own == unit] for unit in own.unique().tolist()]
