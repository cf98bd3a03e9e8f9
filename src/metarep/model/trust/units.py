"""Units: images that are left out together, and count as one, because they show the same thing."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarep.data.copies.near_pairs import Groups


def join_groups(
    copies: Int[Tensor, " n"], groups: Sequence[str], classes: Int[Tensor, " n"] | None = None
) -> Int[Tensor, " n"]:
    """Joins units of near copies whose images are of one group.

    Args:
        copies: the unit of each image by its pixels, as :func:`metarep.data.copies.near_copies.near_copies` gives it.
        groups: the group of each image; an empty text for one by itself.
        classes: the class of each image; images of a group are joined within their class. None joins all of a group.

    Returns:
        The unit of each image, numbered from 0 in the order of the first image.

    >>> groups = ("a", "", "a", "b", "b")
    >>> join_groups(torch.tensor([0, 1, 2, 1, 3]), groups).tolist()
    [0, 1, 0, 1, 1]
    >>> join_groups(torch.arange(5), groups, torch.tensor([0, 0, 1, 1, 1])).tolist()
    [0, 1, 2, 3, 3]
    """
    if not any(groups):
        return copies
    joined, first = Groups(len(copies)), dict[tuple[int, str], int]()
    _, start, same = np.unique(copies.numpy(), return_index=True, return_inverse=True)
    joined.join(np.arange(len(copies)), start[same])
    within = [0] * len(copies) if classes is None else classes.tolist()
    pairs = [(row, first.setdefault(key, row)) for row, key in enumerate(zip(within, groups, strict=True)) if key[1]]
    joined.join(*np.array(pairs).T)
    return torch.from_numpy(np.unique(joined.of, return_inverse=True)[1])


def mean_of_units(
    values: Float[Tensor, " images"], units: Int[Tensor, " images"]
) -> tuple[Int[Tensor, " units"], Float[Tensor, " units"]]:
    """Returns the units that occur, ascending, and the mean of the values of each.

    >>> mean_of_units(torch.tensor([1.0, 0.0, 1.0]), torch.tensor([7, 7, 2]))
    (tensor([2, 7]), tensor([1.0000, 0.5000]))
    """
    found, position, times = units.unique(return_inverse=True, return_counts=True)
    return found, values.new_zeros(len(found)).index_add(0, position, values) / times


def lowest(values: Float[Tensor, " images"], units: Int[Tensor, " images"], share: float) -> float:
    """Returns a conformal threshold (Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World, 2005).

    It is the ``floor(share * (units + 1))``-th smallest value, so that at most the share of further values is lower.
    Images of a unit have a weight of one together (Dunn, Wasserman, Ramdas, Distribution-Free Prediction Sets for
    Two-Layer Hierarchical Models, 2022). Trap: with too few units this rank is 0. The threshold is then 0, the lowest
    that a probability can be.

    Args:
        values: probabilities of the images.
        units: the unit of each.
        share: between 0 and 1.

    >>> values = torch.tensor([0.4, 0.1, 0.3, 0.2])
    >>> [round(lowest(values, units, 0.4), 1) for units in (torch.arange(4), torch.tensor([0, 1, 1, 1]))]
    [0.2, 0.3]
    """
    _, position, times = units.unique(return_inverse=True, return_counts=True)
    rank, order = math.floor(share * (len(times) + 1)), values.argsort()
    reached = (1 / times.double())[position][order].cumsum(0) >= rank - 1e-9
    return values[order][reached][0].item() if rank else 0.0
