"""Near copies of pictures: found if saved again, scaled, cropped a little, mirrored, or taken in one burst."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from metarep.data.copies.near_pairs import Groups, linked, near_pairs
from metarep.data.copies.picture_hash import Hashes, colour
from metarep.data.copies.picture_match import match, outline

SURE = 0.9995  # cosine of features above which a pair is a copy: two photographs of one person reach 0.992
ALIKE = 0.85  # cosine of features above which a pair is a candidate: 99 of 100 pictures cropped by 5 % have 0.88
OUTLINE = 0.9  # correlation of whole pictures above which a pair is a candidate, whatever the cosine of its features
OUTLINE_ALONE = 0.7  # the same where there are no features
MOST = 8  # candidates of a picture in each block of 4,096 others: the nearest ones
GREY = (
    12.0  # least colour distance, in levels, of two pictures without colour: two grey faces of one person are so alike
)
COLOURLESS = 2.0  # levels of colour below which a picture counts as one without colour
SAME, SAME_ALONE = 13.1, 11.8  # likeness of a copy, with and without features; chosen on Caltech-101's training classes


def near_copies(features: Float[Tensor, "n dim"] | None, hashes: Hashes | None = None) -> Int[Tensor, " n"]:
    """Group pictures that are near copies of each other. Most groups have one picture.

    Features alone cannot tell a copy from a similar picture: a photograph and the same one saved again have a cosine
    of 0.93, while two photographs of one person reach 0.99. So with features alone, only pictures that the encoder
    can hardly tell apart are grouped. With hashes, pairs whose thumbnails correlate or whose features are near are
    compared tile by tile. A copy of a copy is in the same group.

    Args:
        features: features of the pictures from an encoder, of any length; None if there are none.
        hashes: from :func:`metarep.data.copies.picture_hash.picture_hash`. Pictures whose hash is all zeros are
            compared by features alone.

    Returns:
        The number of the group of each picture. Groups are numbered from 0, in the order of their first picture.

    >>> near_copies(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.001]])).tolist()
    [0, 1, 0]
    """
    groups = find_copies(features, hashes)
    return torch.from_numpy(np.unique(groups.of, return_inverse=True)[1])


def find_copies(
    features: Float[Tensor, "n dim"] | None, hashes: Hashes | None = None, watch: Callable[[int], None] | None = None
) -> Groups:
    """Group near copies as :func:`near_copies` does, and return groups that can be joined further.

    Args:
        features, hashes: see :func:`near_copies`.
        watch: called with the number of pictures that are done.
    """
    unit = None if features is None else functional.normalize(features.float(), dim=-1)
    if hashes is None:
        return linked(torch.zeros(0, 1) if unit is None else unit, SURE, watch=watch)
    groups = Groups(len(hashes))
    _, first, same = np.unique(hashes.numpy(), axis=0, return_index=True, return_inverse=True)
    hashed = hashes.any(1).numpy()
    rows = np.flatnonzero(hashed)
    groups.join(rows, first[same.reshape(-1)][rows])
    blank = np.flatnonzero(~hashed)
    if unit is not None and len(blank):
        alike = linked(unit[blank], SURE).of
        groups.join(blank, blank[alike])
    rows = np.flatnonzero(hashed & (groups.of == np.arange(len(hashed))))  # the first picture of each group
    if len(rows) > 1:
        one, other = _candidates(None if unit is None else unit[rows], hashes[rows], watch)
        one, other = rows[one], rows[other]
        copies = (likeness(hashes[one], hashes[other], _cosines(unit, one, other)) >= 1).numpy()
        groups.join(one[copies], other[copies])
    return groups


def likeness(one: Hashes, other: Hashes, cosines: Float[Tensor, " n"] | None = None) -> Float[Tensor, " n"]:
    """Score how likely the pictures of each pair are copies: 1 or more for copies.

    The score is a weighted sum of logarithms. Each is of the distance from a perfect match in one respect: the whole
    picture, its worst tiles, its colours, and its features. The weights are those of a logistic regression.

    Args:
        one, other: hashes of the two pictures of each pair.
        cosines: the cosine of the features of each pair; None if there are no features.
    """
    whole, tiles, tint = match(one, other)
    tones = torch.maximum(*(colour(hashes).flatten(1).norm(dim=1) for hashes in (one, other)))
    tint = torch.where(tones < COLOURLESS, tint.clamp_min(GREY), tint)
    whole, tiles, tint = (1 - whole).clamp_min(1e-3).log(), (1 - tiles).clamp_min(3e-3).log(), tint.clamp_min(1).log()
    if cosines is None:
        return (2.8 * whole + tiles + 2.6 * tint) / -SAME_ALONE
    return (2.5 * whole + tiles + 2.5 * tint + (1 - cosines).clamp_min(1e-3).log()) / -SAME


def _candidates(
    unit: Float[Tensor, "n dim"] | None, hashes: Hashes, watch: Callable[[int], None] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of pictures that may be copies: the rows of the first and of the second picture, each pair once."""
    plain, mirrored = outline(hashes), outline(hashes, mirrored=True)
    least = OUTLINE_ALONE if unit is None else OUTLINE
    passes = [near_pairs(plain, least, most=MOST, watch=watch), near_pairs(plain, least, mirrored, most=MOST)]
    if unit is not None:
        passes.append(near_pairs(unit, ALIKE, most=MOST))
    codes = np.unique(np.concatenate([_codes(pairs, len(hashes)) for pairs in passes]))
    return codes // len(hashes), codes % len(hashes)


def _codes(pairs: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]], n: int) -> np.ndarray:
    """The distinct numbers of pairs of ``n`` pictures. A pair has the same number in either order."""
    codes = [np.minimum(one, other) * n + np.maximum(one, other) for one, other, _ in pairs]
    return np.unique(np.concatenate(codes)) if codes else np.empty(0, np.int64)


def _cosines(unit: Float[Tensor, "n dim"] | None, one: np.ndarray, other: np.ndarray) -> Tensor | None:
    """The cosine of each pair of unit vectors, computed in parts; None if there are no vectors."""
    if unit is None:
        return None
    starts = range(0, len(one), 8192)
    cosines = [(unit[one[at : at + 8192]] * unit[other[at : at + 8192]]).sum(1) for at in starts]
    return torch.cat(cosines) if cosines else torch.zeros(0)
