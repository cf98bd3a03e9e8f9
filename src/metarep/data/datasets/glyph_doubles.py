"""Drop letters that look alike: of each set of look-alikes, one is kept."""

import numpy as np
from jaxtyping import Float32
from PIL import Image, ImageFilter

GRID = 24  # height and width, in pixels, at which letters are compared
SAME_SOMEWHERE = 0.96  # least overlap of look-alikes in any one typeface that they share
SAME_ON_AVERAGE = 0.91  # least mean overlap over all typefaces that they share; E and F have 0.90
SAME_CASE = 0.85  # the same for a capital and its small letter, which differ in stroke weight and not in structure


def drop_doubles(letters: list[int], inks: list[dict[int, Image.Image]]) -> list[int]:
    """Keep the letters that do not look like an earlier letter of the list.

    Every letter is centred and scaled to one size first. So letters that differ in size alone have one shape, such as
    o and O, or Latin A, Greek Alpha and Cyrillic A. Two letters are alike if they nearly coincide in one typeface
    that they share, or if they are close in all of them. Cyrillic te in italics looks exactly like Latin m, so a task
    must not have both.

    Args:
        letters: code points. Of look-alikes, the first in this list stays.
        inks: for each typeface, the ink of its letters (see ``glyph_fonts.ink``).

    Returns:
        The code points that are kept, in the same order.
    """
    n = len(letters)
    nearest, total, shared = (np.zeros((n, n), np.float32) for _ in range(3))
    for ink in inks:
        rows = np.array([row for row, letter in enumerate(letters) if letter in ink])
        alike = _overlap(np.stack([_shape(ink[letters[row]]) for row in rows]))
        pairs = np.ix_(rows, rows)
        nearest[pairs] = np.maximum(nearest[pairs], alike)
        total[pairs] += alike
        shared[pairs] += 1
    folded = np.array([ord(chr(letter).lower()) for letter in letters])
    enough = np.where(folded[:, None] == folded, SAME_CASE, SAME_ON_AVERAGE)
    double = (nearest >= SAME_SOMEWHERE) | (total >= enough * np.maximum(shared, 1))
    kept: list[int] = []
    for row in range(n):
        if not double[row, kept].any():
            kept.append(row)
    return [letters[row] for row in kept]


def _shape(ink: Image.Image) -> Float32[np.ndarray, " dim"]:
    """Draw a letter on a small grid, blurred by a pixel so that stroke weight counts less than structure."""
    scale = (GRID - 4) / max(ink.size)
    size = max(1, round(ink.width * scale)), max(1, round(ink.height * scale))
    grid = Image.new("L", (GRID, GRID))
    grid.paste(ink.resize(size, Image.Resampling.BOX), ((GRID - size[0]) // 2, (GRID - size[1]) // 2))
    # With 16 levels, sums of products stay below 2**24. There float32 is exact in any order of addition, so every
    # machine drops the same letters.
    return (np.asarray(grid.filter(ImageFilter.GaussianBlur(0.75))) >> 4).astype(np.float32).ravel()


def _overlap(shapes: Float32[np.ndarray, "n dim"]) -> Float32[np.ndarray, "n n"]:
    """Dice's coefficient of each pair of shapes: twice the common ink over the ink of both; 1 for equal shapes."""
    common = shapes @ shapes.T
    own = np.diagonal(common)
    return 2 * common / (own[:, None] + own[None])
