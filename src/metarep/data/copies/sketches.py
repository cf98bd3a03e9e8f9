"""Near copies among millions of pictures: candidates are pictures whose sketches agree, instead of all pairs."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt64
from torch import Tensor

from metarep.data.copies.near_copies import OUTLINE_ALONE, likeness
from metarep.data.copies.near_pairs import Groups
from metarep.data.copies.picture_hash import BRIGHT, brightness, frequencies
from metarep.data.copies.picture_match import mirror, outline

BITS = 64  # of a sketch: the signs of the lowest cosine coefficients of brightness
TABLES = 8  # orders of the bits by which sketches are sorted
NEAR = 16  # neighbours in each order that a picture is compared with
APART = 12  # bits in which the sketches of candidates may differ
AT_ONCE = 1 << 16  # pictures or pairs at a time

Read = Callable[[np.ndarray], Tensor]  # the hashes at some rows


def crossing_copies(hashes: Read, classes: np.ndarray) -> np.ndarray:
    """Group near copies that are in different classes, without comparing all pairs.

    Each picture has a sketch of 64 bits, and one more for its mirror image. The sketches are sorted by some of their
    bits, eight times by others, and each is compared with its next neighbours. So the time grows with the number of
    pictures and not with its square. Copies that differ in many bits are missed, such as pictures that were cropped.

    Args:
        hashes: reads the hashes of :func:`metarep.data.copies.picture_hash.picture_hash` at some rows.
        classes: the class of each picture.

    Returns:
        The group of each picture.
    """
    n = len(classes)
    sketches, hashed = np.zeros(2 * n, np.uint64), np.zeros(n, bool)  # of the pictures, then of their mirror images
    for start in range(0, n, AT_ONCE):
        rows = np.arange(start, min(n, start + AT_ONCE))
        some = hashes(rows)
        hashed[rows] = some.any(1).numpy()
        sketches[rows], sketches[n + rows] = _sketch(brightness(some)), _sketch(mirror(brightness(some)))
    items, groups, seen = np.flatnonzero(np.tile(hashed, 2)), Groups(n), np.empty(0, np.int64)
    for table in range(TABLES):
        codes = np.setdiff1d(_candidates(sketches, items, classes, table), seen)
        seen = np.union1d(seen, codes)
        for at in range(0, len(codes), AT_ONCE):
            one, other = np.divmod(codes[at : at + AT_ONCE], n)
            left, right = hashes(one), hashes(other)
            whole = (outline(left) * outline(right)).sum(1)
            near = torch.maximum(whole, (outline(left) * outline(right, mirrored=True)).sum(1)) >= OUTLINE_ALONE
            one, other = one[near.numpy()], other[near.numpy()]
            copies = (likeness(left[near], right[near]) >= 1).numpy()
            groups.join(one[copies], other[copies])
    return groups.of


def _sketch(coefficients: Float[Tensor, "n 16 16"]) -> UInt64[np.ndarray, " n"]:
    """The signs of the lowest coefficients, mixed, so that each part of a sketch has low and high frequencies."""
    lowest = frequencies(BRIGHT).flatten().argsort(stable=True)[1 : BITS + 1].numpy()  # the first is the mean
    chosen = lowest[np.random.default_rng(0).permutation(BITS)]
    signs = (coefficients.flatten(1)[:, chosen] > 0).numpy()
    return np.packbits(signs, axis=1).view(np.uint64)[:, 0]


def _candidates(
    sketches: UInt64[np.ndarray, " m"], items: np.ndarray, classes: np.ndarray, table: int
) -> Int64[np.ndarray, " pairs"]:
    """Pairs of pictures of different classes that are neighbours in one order and whose sketches nearly agree.

    Args:
        sketches: those of the pictures, then those of their mirror images.
        items: the positions in ``sketches`` to compare.
        classes: the class of each picture.
        table: the number of the order.

    Returns:
        For each pair the number ``first * n + second``, each once.
    """
    n, turn = len(classes), np.uint64(table * BITS // TABLES)
    turned = sketches[items]
    if table:
        turned = (turned << turn) | (turned >> (np.uint64(BITS) - turn))
    ordered = items[np.argsort(turned, kind="stable")]
    codes = []
    for step in range(1, min(NEAR, len(ordered) - 1) + 1):
        one, other = ordered[:-step], ordered[step:]
        alike = _bits(sketches[one] ^ sketches[other]) <= APART
        alike &= (one < n) | (other < n)  # two mirror images are two pictures
        one, other = one[alike] % n, other[alike] % n
        across = classes[one] != classes[other]
        one, other = one[across], other[across]
        codes.append(np.minimum(one, other) * n + np.maximum(one, other))
    return np.unique(np.concatenate(codes)) if codes else np.empty(0, np.int64)


def _bits(words: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """The number of bits that are set in each word: sums of 2, of 4 and of 8 neighbours, then of all bytes."""
    ones, pairs, fours, bytes_ = (np.uint64(int(each * 8, 16)) for each in ("55", "33", "0f", "01"))
    words = words - (words >> np.uint64(1) & ones)
    words = (words & pairs) + (words >> np.uint64(2) & pairs)
    return ((words + (words >> np.uint64(4))) & fours) * bytes_ >> np.uint64(56)
