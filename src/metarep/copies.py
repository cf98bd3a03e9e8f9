"""Pictures that are near copies of one another: saved again, scaled, cut a little, mirrored, or of one burst."""

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor
from torch.nn import functional

SURE = 0.995  # cosine of features above which pictures are copies whatever their hashes say; persons reach 0.992
ROWS = 1024  # compared at a time


def near_copies(features: Float[Tensor, "n dim"], hashes: Int8[Tensor, "n length"] | None = None) -> Int[Tensor, " n"]:
    """The group of each picture: those of a group are near copies of each other, most groups have one picture.

    Args:
        features: what an encoder says of the pictures; of any length.
        hashes: of :func:`metarep.picture_hash.picture_hash`. Without them only copies that the encoder can hardly
            tell apart are found, since features of one person's photographs come as near as those of copies.

    Returns:
        Numbers from 0, in the order of each group's first picture.

    >>> near_copies(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.001]])).tolist()
    [0, 1, 0]
    """
    unit = functional.normalize(features.float(), dim=-1)
    group = torch.arange(len(unit))
    del hashes
    for start in range(0, len(unit), ROWS):
        near = (unit[start : start + ROWS] @ unit.T >= SURE).nonzero()
        for row, column in near.tolist():
            one, other = int(group[start + row]), int(group[column])
            if one != other:
                group[group == max(one, other)] = min(one, other)
    return torch.unique(group, return_inverse=True)[1]
