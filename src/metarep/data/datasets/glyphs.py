"""Glyphs: the built-in data set, made of letters of many scripts in the fonts that ship with matplotlib."""

import math
import unicodedata
from importlib.metadata import version

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from metarep.data.datasets.cache import cached_images
from metarep.data.datasets.glyph_doubles import drop_doubles
from metarep.data.datasets.glyph_fonts import ink, script, typefaces
from metarep.data.datasets.options import Options
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.errors import DataError, unknown

ABOUT = "591 letters of 12 scripts in 4 to 16 typefaces, 36 or more images each, 28 x 28, drawn from matplotlib's fonts"
# Of look-alikes, the one in the first script of this order is kept. So the alphabets for evaluation stay complete, and
# the training set loses its letters that look like theirs.
SCRIPTS = {
    "test": ("ARMENIAN",),
    "val": ("GEORGIAN",),
    "train": ("LATIN", "GREEK", "COPTIC", "CYRILLIC", "HEBREW", "ARABIC", "LAO", "CANADIAN", "LISU", "OLD"),
}
RECIPE = 2  # version of the pixels; raise it whenever they change
SEED = 20_240
SIZE = 28  # default height and width in pixels
SAMPLES = 36  # least number of images of a class
TYPEFACES = 4  # least number of typefaces of a class
OVERSAMPLE = 3  # letters are drawn this many times larger and then scaled down


def load(argument: str, split: str, options: Options) -> Split:
    """Load one part of the glyphs: dark ink (0) on white (255), uint8 ``(n, 1, size, size)``.

    A class is a letter. Its images show that letter in 4 to 16 typefaces, several times in each, and each time a
    little rotated, sheared, scaled and shifted. ``labels.groups`` is the typeface. So a task never shows a class in
    the same typeface as support and as query. Training has Latin, Greek, Cyrillic and more scripts, validation has
    Georgian, and test has Armenian. The pixels depend only on the versions of matplotlib (the fonts) and of Pillow
    (their rendering).

    Args:
        argument: must be empty; glyphs has no variants.
        split: ``train``, ``val`` or ``test``.
        options: ``size`` defaults to 28.

    Raises:
        MetarepError: there is no such split. ``DataError`` if an argument is given or the fonts are missing.
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
    """Draw all images, sorted by split and class, and collect the facts that ``load`` needs about them.

    Args:
        size: height and width in pixels.
    """
    faces = typefaces(frozenset(name for names in SCRIPTS.values() for name in names))
    inks = [ink(face, size * OVERSAMPLE) for face in faces]
    order = [name for names in SCRIPTS.values() for name in names]
    letters = sorted(set().union(*inks), key=lambda letter: (order.index(script(chr(letter))), letter))
    kept = drop_doubles([letter for letter in letters if sum(letter in ink for ink in inks) >= TYPEFACES], inks)
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
    """Draw one glyph ``n`` times, each with a random rotation, shear, scale and shift, and all ink inside the square.

    Args:
        ink: the glyph, cropped to its ink, 255 on 0.
        n: the number of drawings.
        size: height and width in pixels.
        generator: it decides the random parameters.

    Returns:
        The drawings, ink 0 on 255.
    """
    side = size * OVERSAMPLE
    # A clear border, because resampling cuts a stroke off sharply at the end of the source.
    padded = Image.new("L", (ink.width + 4, ink.height + 4))
    padded.paste(ink, (2, 2))
    turn, shear, stretch, fill, *shift = generator.uniform(-1, 1, size=(6, n))
    cos, sin = np.cos(0.21 * turn), np.sin(0.21 * turn)  # at most 12 degrees
    zero, wide = np.zeros(n), 1 + 0.1 * stretch
    rotation = np.array([[cos, -sin], [sin, cos]]).transpose(2, 0, 1)
    shape = np.array([[wide, 0.15 * shear], [zero, 1 / wide]]).transpose(2, 0, 1)
    forward = rotation @ shape * ((0.72 + 0.1 * fill) * side / max(ink.size))[:, None, None]
    extent = np.abs(forward) @ np.array(ink.size)
    shrink = np.minimum(1, 0.92 * side / extent.max(1))[:, None]
    room = np.minimum(0.1 * side, (0.93 * side - shrink * extent) / 2)
    inverse = np.linalg.inv(forward * shrink[..., None])
    centre = side / 2 + room * np.stack(shift, 1)
    # Pillow maps from the drawing to the source.
    offset = np.array(padded.size) / 2 - (inverse @ centre[..., None])[..., 0]
    drawings = []
    for matrix in np.concatenate([inverse, offset[..., None]], axis=2).reshape(n, 6).tolist():
        drawing = padded.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        drawings.append(255 - np.asarray(drawing.reduce(OVERSAMPLE)))
    return drawings


def _name(letter: int) -> str:
    """The name of a class as people read it, such as ``Armenian/small letter ben``."""
    first, _, rest = unicodedata.name(chr(letter)).partition(" ")
    return f"{first.capitalize()}/{rest.lower()}"
