"""Letters that cannot be told apart: of each set of look-alikes, one is kept."""

import numpy as np
from jaxtyping import Float32
from PIL import Image, ImageFilter

GRID = 24
SAME_SOMEWHERE = 0.96  # in any one typeface they share
SAME_ON_AVERAGE = 0.91  # over all the typefaces they share; E and F have 0.90
SAME_CASE = 0.85  # on average, for a capital and its small letter: there the difference is stroke weight, not structure


def drop_doubles(letters: list[int], inks: list[dict[int, Image.Image]]) -> list[int]:
    """The letters that look like no earlier letter of the list; order decides who stays.

    Every letter is centred and scaled to one size first, so that two which differ in size alone (o and O, and Latin
    A, Greek Alpha and Cyrillic A with them) are one shape. Two letters are alike if they nearly coincide in one
    typeface they share, or are close in all of them: italic Cyrillic te *is* Latin m, and a task that shows it must
    not hold both.

    Args:
        letters: code points.
        inks: for each typeface, the ink of its letters (see ``glyph_fonts.ink``).
    """
    n = len(letters)
    nearest, total, shared = (np.zeros((n, n), np.float32) for _ in range(3))
    for ink in inks:
        here = np.array([row for row, letter in enumerate(letters) if letter in ink])
        alike = _overlap(np.stack([_shape(ink[letters[row]]) for row in here]))
        at = np.ix_(here, here)
        nearest[at] = np.maximum(nearest[at], alike)
        total[at] += alike
        shared[at] += 1
    folded = np.array([ord(chr(letter).lower()) for letter in letters])
    enough = np.where(folded[:, None] == folded, SAME_CASE, SAME_ON_AVERAGE)
    double = (nearest >= SAME_SOMEWHERE) | (total >= enough * np.maximum(shared, 1))
    kept: list[int] = []
    for row in range(n):
        if not double[row, kept].any():
            kept.append(row)
    return [letters[row] for row in kept]


def _shape(ink: Image.Image) -> Float32[np.ndarray, " dim"]:
    """A letter on a small grid, blurred by a pixel so that stroke weight counts less than structure."""
    scale = (GRID - 4) / max(ink.size)
    size = max(1, round(ink.width * scale)), max(1, round(ink.height * scale))
    grid = Image.new("L", (GRID, GRID))
    grid.paste(ink.resize(size, Image.Resampling.BOX), ((GRID - size[0]) // 2, (GRID - size[1]) // 2))
    # Sixteen levels: sums of their products stay below 2**24, where float32 is exact in whatever order it adds, so
    # that every machine drops the same letters.
    return (np.asarray(grid.filter(ImageFilter.GaussianBlur(0.75))) >> 4).astype(np.float32).ravel()


def _overlap(shapes: Float32[np.ndarray, "n dim"]) -> Float32[np.ndarray, "n n"]:
    """Twice the common ink over the ink of both (Dice's coefficient): 1 for equal shapes."""
    common = shapes @ shapes.T
    own = np.diagonal(common)
    return 2 * common / (own[:, None] + own[None])
