"""Typefaces that ship with matplotlib: which letters each of them has, and the pictures of the letters."""

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from metarep.errors import DataError

# An explicit list, so that a matplotlib with more fonts still gives the same data set. It leaves out the cm* fonts
# (made for TeX, where many codes show another letter), STIX's sizes and NonUnicode, the two Display cuts (without
# letters), and LastResort, which draws a placeholder for every code.
FILES = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
)
# Canadian syllables of at most one consonant and one short vowel. Dots before, above and after these mark w and long
# vowels. They are like accents elsewhere, but Unicode does not say so.
PLAIN_SYLLABLE = re.compile("CANADIAN SYLLABICS [BCDFGHJKLMNPQRSTVXYZ]*[AEIO]")
# Share of the font size. What is smaller is a mark, such as an Arabic tail or the final of a syllable, and would be
# enlarged to the size of a letter.
SMALLEST = 0.35


@dataclass(frozen=True)
class Typeface:
    """One font file: a family in one weight and slope.

    Args:
        name: the family and the style.
        path: the font file.
        letters: the code points of its letters.
    """

    name: str
    path: Path
    letters: frozenset[int]


def typefaces(scripts: frozenset[str]) -> list[Typeface]:
    """List the typefaces of ``FILES`` and the base letters of some scripts that each of them has.

    Args:
        scripts: first words of Unicode names, such as ``LATIN``.

    Raises:
        DataError: matplotlib is installed without its fonts, as some systems package it.
    """
    import matplotlib  # not at the top, because it takes half a second to import
    from matplotlib.ft2font import FT2Font

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    faces = []
    for file in FILES:
        path = folder / f"{file}.ttf"
        if not path.is_file():
            raise DataError(
                f"matplotlib's font {path.name} is not in {folder}; install matplotlib from PyPI, which brings it"
            )
        font = FT2Font(str(path))
        codes = frozenset(
            code for code in font.get_charmap() if is_base_letter(chr(code)) and script(chr(code)) in scripts
        )
        faces.append(Typeface(f"{font.family_name} {font.style_name}", path, codes))
    return faces


def script(letter: str) -> str:
    """The script of a letter, which is the first word of its Unicode name.

    >>> script("բ")
    'ARMENIAN'
    """
    return unicodedata.name(letter, "?").split()[0]


def is_base_letter(letter: str) -> bool:
    """Whether a character is a base letter: one without an accent, hook or stroke, not a styled copy, not a click.

    At 28 x 28 an accent is a few pixels, and fonts have a dozen accented forms of each vowel. As classes they could
    hardly be told apart.

    >>> [is_base_letter(letter) for letter in "aßжéøﬁ1"]
    [True, True, True, False, False, False, False]
    """
    name = unicodedata.name(letter, "")
    return (
        unicodedata.category(letter) in ("Lu", "Ll", "Lo")
        and unicodedata.normalize("NFKD", letter) == letter
        and not re.search("^$| WITH |CLICK|FRAGMENT", name)
        and (not name.startswith("CANADIAN") or PLAIN_SYLLABLE.fullmatch(name) is not None)
    )


def ink(typeface: Typeface, pixels: int) -> dict[int, Image.Image]:
    """Draw each letter of a typeface and crop it to its ink.

    Letters that are drawn blank, tiny, or as the box for a missing glyph are left out.

    Args:
        typeface: the typeface.
        pixels: font size; a capital is about 0.7 times as high.

    Returns:
        The picture of each code point: mode "L", ink 255 on 0.
    """
    font = ImageFont.truetype(typeface.path, pixels, layout_engine=ImageFont.Layout.BASIC)
    missing = _draw(font, "\uffff")
    drawn = ((letter, _draw(font, chr(letter))) for letter in sorted(typeface.letters))
    return {
        letter: picture
        for letter, picture in drawn
        if picture is not None and max(picture.size) >= SMALLEST * pixels and picture != missing
    }


def _draw(font: ImageFont.FreeTypeFont, letter: str) -> Image.Image | None:
    """Draw one character, cropped to its ink; None if it is blank."""
    left, top, right, bottom = font.getbbox(letter)
    picture = Image.new("L", (int(right - left) + 8, int(bottom - top) + 8))  # a margin, so that nothing is clipped
    ImageDraw.Draw(picture).text((4 - left, 4 - top), letter, fill=255, font=font)
    box = picture.getbbox()
    return picture.crop(box) if box else None
