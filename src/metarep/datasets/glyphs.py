"""Glyphs: the embedded data set. Letters of many scripts, drawn from the fonts that ship inside matplotlib."""

import math
import unicodedata
from importlib.metadata import version

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from metarep.datasets.cache import cached_images
from metarep.datasets.glyph_doubles import drop_doubles
from metarep.datasets.glyph_fonts import ink, script, typefaces
from metarep.datasets.options import Options
from metarep.datasets.split import Split
from metarep.errors import DataError, unknown
from metarep.images import ImageBank
from metarep.labels import Labels

ABOUT = "591 letters of 12 scripts in 4 to 16 typefaces, 36 or more images each, 28 x 28, drawn from matplotlib's fonts"
# Look-alikes are kept in the first script of this order, so that the alphabets for evaluation stay whole and their
# doubles leave the training set.
SCRIPTS = {
    "test": ("ARMENIAN",),
    "val": ("GEORGIAN",),
    "train": ("LATIN", "GREEK", "COPTIC", "CYRILLIC", "HEBREW", "ARABIC", "LAO", "CANADIAN", "LISU", "OLD"),
}
RECIPE = 2  # raise it whenever the pixels change
SEED = 20_240
SIZE = 28
SAMPLES = 36  # images a class, at least
TYPEFACES = 4  # a class, at least
OVERSAMPLE = 3


def load(argument: str, split: str, options: Options) -> Split:
    """One part of the glyphs: dark ink (0) on white (255), uint8 ``(n, 1, size, size)``.

    A class is a letter, its images are that letter in 4 to 16 typefaces, each several times, a little turned,
    sheared, scaled and shifted. ``labels.groups`` is the typeface, so that no task shows the same typeface of a class
    as support and as query. Training has Latin, Greek, Cyrillic and more; validation is Georgian, test is Armenian.
    The pixels depend on the versions of matplotlib (the fonts) and Pillow (their rendering) and on nothing else.

    Args:
        argument: nothing; glyphs has no variants.
        split: ``train``, ``val`` or ``test``.
        options: ``size`` defaults to 28.
    """
    if argument:
        raise DataError(f"glyphs has no variants; write 'glyphs' without ':{argument}'")
    if split not in SCRIPTS:
        raise unknown("split", split, SCRIPTS)
    size = options.size or SIZE
    key = f"glyphs-{RECIPE}-{size}-matplotlib{version('matplotlib')}-pillow{version('pillow')}"
    images, facts = cached_images(key, lambda: build(size))
    start, stop = facts["bounds"][split]
    letters = facts["letters"][split]
    return Split(
        ImageBank(images[start:stop]),
        Labels(
            torch.repeat_interleave(torch.tensor([count for _, count in letters])),
            tuple(_name(letter) for letter, _ in letters),
            tuple(f"glyphs/U+{letter:04X}" for letter, _ in letters),
            torch.tensor(facts["typeface"][start:stop]),
        ),
        f"glyphs/{split}",
    )


def build(size: int) -> tuple[UInt8[np.ndarray, "n 1 h w"], dict]:
    """All images, split after split and class after class, and the facts that ``load`` needs about them."""
    faces = typefaces(frozenset(name for names in SCRIPTS.values() for name in names))
    inks = [ink(face, size * OVERSAMPLE) for face in faces]
    order = [name for names in SCRIPTS.values() for name in names]
    everyone = sorted(set().union(*inks), key=lambda letter: (order.index(script(chr(letter))), letter))
    kept = drop_doubles([letter for letter in everyone if sum(letter in ink for ink in inks) >= TYPEFACES], inks)
    images: list[np.ndarray] = []
    facts: dict = {"bounds": {}, "letters": {}, "typeface": [], "typefaces": [face.name for face in faces]}
    for split, names in SCRIPTS.items():
        start = len(images)
        facts["letters"][split] = []
        for letter in (letter for letter in kept if script(chr(letter)) in names):
            owners = [row for row, ink in enumerate(inks) if letter in ink]
            each = math.ceil(SAMPLES / len(owners))
            for owner in owners:
                images += draw(inks[owner][letter], each, size, np.random.default_rng((SEED, letter, owner)))
                facts["typeface"] += [owner] * each
            facts["letters"][split].append((letter, each * len(owners)))
        facts["bounds"][split] = (start, len(images))
    return np.stack(images)[:, None], facts


def draw(ink: Image.Image, n: int, size: int, generator: np.random.Generator) -> list[UInt8[np.ndarray, "h w"]]:
    """``n`` drawings of one glyph, each with its own turn, shear, scale and shift, all of its ink inside the square.

    Args:
        ink: the glyph, cut to its ink, 255 on 0.
        n: how many.
        size: height and width in pixels.
    """
    side = size * OVERSAMPLE
    # A clear border: where the source ends, resampling would cut a stroke off sharply.
    padded = Image.new("L", (ink.width + 4, ink.height + 4))
    padded.paste(ink, (2, 2))
    turn, shear, stretch, fill, *shift = generator.uniform(-1, 1, size=(6, n))
    cos, sin, zero, wide = (
        np.cos(0.21 * turn),
        np.sin(0.21 * turn),
        np.zeros(n),
        1 + 0.1 * stretch,
    )  # 0.21 is 12 degrees
    rotation = np.array([[cos, -sin], [sin, cos]]).transpose(2, 0, 1)
    shape = np.array([[wide, 0.15 * shear], [zero, 1 / wide]]).transpose(2, 0, 1)
    forward = rotation @ shape * ((0.72 + 0.1 * fill) * side / max(ink.size))[:, None, None]
    extent = np.abs(forward) @ np.array(ink.size)
    shrink = np.minimum(1, 0.92 * side / extent.max(1))[:, None]
    room = np.minimum(0.1 * side, (0.93 * side - shrink * extent) / 2)
    inverse = np.linalg.inv(forward * shrink[..., None])
    centre = side / 2 + room * np.stack(shift, 1)
    offset = (
        np.array(padded.size) / 2 - (inverse @ centre[..., None])[..., 0]
    )  # Pillow maps from the drawing to the source
    drawings = []
    for matrix in np.concatenate([inverse, offset[..., None]], axis=2).reshape(n, 6).tolist():
        drawing = padded.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        drawings.append(255 - np.asarray(drawing.reduce(OVERSAMPLE)))
    return drawings


def _name(letter: int) -> str:
    """What people read: ``Armenian/small letter ben``."""
    first, _, rest = unicodedata.name(chr(letter)).partition(" ")
    return f"{first.capitalize()}/{rest.lower()}"
