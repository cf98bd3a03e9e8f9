"""Pictures that are near copies of one another: saved again, scaled, cut a little, mirrored, or of one burst."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from metarep.near_pairs import Groups, linked, near_pairs
from metarep.picture_hash import Hashes, colour
from metarep.picture_match import match, outline

SURE = 0.9995  # cosine of features that makes a copy by itself: two photographs of one person reach 0.992
ALIKE = 0.85  # ... and that makes a pair worth a look: 99 of 100 pictures cut by 5 % have 0.88
OUTLINE = 0.9  # correlation of whole pictures that makes a pair worth a look, whatever their features
OUTLINE_ALONE = 0.7  # ... where there are no features
MOST = 8  # pairs of a picture that are looked at in each block of 4,096 others: the nearest
GREY = 12.0  # levels that two pictures without colour are taken to differ by: grey faces of one person are that alike
COLOURLESS = 2.0  # levels
SAME, SAME_ALONE = 13.1, 11.8  # likeness of a copy, with and without features; chosen on Caltech-101's training classes


def near_copies(features: Float[Tensor, "n dim"] | None, hashes: Hashes | None = None) -> Int[Tensor, " n"]:
    """The group of each picture: pictures of one group are near copies of each other; most groups have one picture.

    Features alone cannot tell copies from pictures that are alike: a photograph saved again has a cosine of 0.93, two
    photographs of one person reach 0.99. So with features alone only pictures that the encoder can hardly tell
    apart are put together. With hashes, pairs that look alike from afar or have like features are compared place by
    place. Copies of a copy are of one group.

    Args:
        features: what an encoder says of the pictures, of any length; None for none.
        hashes: of :func:`metarep.picture_hash.picture_hash`; those of zeros are compared by features alone.

    Returns:
        Numbers from 0, in the order of each group's first picture.

    >>> near_copies(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.001]])).tolist()
    [0, 1, 0]
    """
    groups = find_copies(features, hashes)
    return torch.from_numpy(np.unique(groups.of, return_inverse=True)[1])


def find_copies(
    features: Float[Tensor, "n dim"] | None, hashes: Hashes | None = None, watch: Callable[[int], None] | None = None
) -> Groups:
    """As :func:`near_copies`, as groups that can be gone on with."""
    unit = None if features is None else functional.normalize(features.float(), dim=-1)
    if hashes is None:
        return linked(torch.zeros(0, 1) if unit is None else unit, SURE, watch=watch)
    groups = Groups(len(hashes))
    _, first, same = np.unique(hashes.numpy(), axis=0, return_index=True, return_inverse=True)
    seen = hashes.any(1).numpy()
    places = np.flatnonzero(seen)
    groups.join(places, first[same.reshape(-1)][places])
    blank = np.flatnonzero(~seen)
    if unit is not None and len(blank):
        alike = linked(unit[blank], SURE).of
        groups.join(blank, blank[alike])
    rows = np.flatnonzero(seen & (groups.of == np.arange(len(seen))))
    if len(rows) > 1:
        one, other = _worth_a_look(None if unit is None else unit[rows], hashes[rows], watch)
        one, other = rows[one], rows[other]
        copies = (likeness(hashes[one], hashes[other], _cosines(unit, one, other)) >= 1).numpy()
        groups.join(one[copies], other[copies])
    return groups


def likeness(one: Hashes, other: Hashes, cosines: Float[Tensor, " n"] | None = None) -> Float[Tensor, " n"]:
    """How sure it is that the pictures of each pair are copies: 1 or more for copies.

    A weighted sum of the logarithms of how far the pair is from perfect in four ways: as a whole, in the worst places,
    in colour, and in features. The weights are those of a logistic regression.
    """
    whole, tiles, tint = match(one, other)
    tones = torch.maximum(*(colour(each).flatten(1).norm(dim=1) for each in (one, other)))
    tint = torch.where(tones < COLOURLESS, tint.clamp_min(GREY), tint)
    whole, tiles, tint = (1 - whole).clamp_min(1e-3).log(), (1 - tiles).clamp_min(3e-3).log(), tint.clamp_min(1).log()
    if cosines is None:
        return (2.8 * whole + tiles + 2.6 * tint) / -SAME_ALONE
    return (2.5 * whole + tiles + 2.5 * tint + (1 - cosines).clamp_min(1e-3).log()) / -SAME


def _worth_a_look(
    unit: Float[Tensor, "n dim"] | None, hashes: Hashes, watch: Callable[[int], None] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that may be copies, each once."""
    plain, mirrored = outline(hashes), outline(hashes, mirrored=True)
    least = OUTLINE_ALONE if unit is None else OUTLINE
    passes = [near_pairs(plain, least, most=MOST, watch=watch), near_pairs(plain, least, mirrored, most=MOST)]
    if unit is not None:
        passes.append(near_pairs(unit, ALIKE, most=MOST))
    found = [_once(some, len(hashes)) for some in passes]
    both = np.unique(np.concatenate(found))
    return both // len(hashes), both % len(hashes)


def _once(pairs: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]], n: int) -> np.ndarray:
    found = [np.minimum(one, other) * n + np.maximum(one, other) for one, other, _ in pairs]
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)


def _cosines(unit: Float[Tensor, "n dim"] | None, one: np.ndarray, other: np.ndarray) -> Tensor | None:
    if unit is None:
        return None
    parts = range(0, len(one), 8192)
    found = [(unit[one[at : at + 8192]] * unit[other[at : at + 8192]]).sum(1) for at in parts]
    return torch.cat(found) if found else torch.zeros(0)
