"""Folds: which images of a model are left out together, so that every class loses the same share of its images."""

import torch
from jaxtyping import Int
from torch import Generator, Tensor

MOST = 20  # folds of one dealing
REPEATED = 6  # folds at least: where a dealing of few images has fewer, it is repeated with other partners
SEVERAL = 200  # images from which chance in the dealing no longer matters


def deal_folds(
    classes: Int[Tensor, " n"], units: Int[Tensor, " n"] | None = None, *, most: int = MOST
) -> list[Int[Tensor, " _"]]:
    """Deal the images of each class over folds.

    Leaving one image out at a time weakens the class of that image alone, so its accuracy is too low: with 101 classes
    of 2 photographs 49 % was said where 76 % was true. Here each fold leaves an image of *every* class out, which
    measures a model of one image a class less. A class with fewer images than there are folds has one of them left out
    in each fold, in turn.

    Args:
        classes: of each image.
        units: images of one number are left out together, since they are copies of each other. By default each image is
            a unit of its own.
        most: folds of one dealing at most; a class with more units has several left out at a time.

    Returns:
        The rows of each fold, the same ones whenever it is asked. A class of a single unit is never left out; where
        that is true of all there is no fold.

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
            for place in range(max(count, len(own))):
                dealt[place % count].append(own[order[place % len(own)]])
        folds += [torch.cat(rows).sort().values for rows in dealt]
    return folds


def _units_of(rows: Int[Tensor, " m"], units: Int[Tensor, " n"]) -> list[Int[Tensor, " _"]]:
    """The rows of one class, a tensor for each unit."""
    own = units[rows]
    return [rows[own == unit] for unit in own.unique().tolist()]
