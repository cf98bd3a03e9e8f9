"""The typefaces that ship inside matplotlib, the letters each one really has, and their ink."""

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from metarep.errors import DataError

# An explicit list, so that a matplotlib with more fonts still gives the same data set. Left out: the cm* fonts (made
# for TeX: many of their codes show another letter), STIX's sizes and NonUnicode, the two Display cuts (no letters), and
# LastResort, which draws a placeholder for every code there is.
FILES = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
)
# Canadian syllables of one consonant (or none) and one short vowel. Dots before, above and after these mark w and long
# vowels, as accents do elsewhere, but Unicode does not say so.
PLAIN_SYLLABLE = re.compile("CANADIAN SYLLABICS [BCDFGHJKLMNPQRSTVXYZ]*[AEIO]")
SMALLEST = (
    0.35  # of the font size; what is smaller is a mark (an Arabic tail, a syllable's final), blown up beyond itself
)


@dataclass(frozen=True)
class Typeface:
    """One font file: a family in one weight and slope."""

    name: str
    path: Path
    letters: frozenset[int]


def typefaces(scripts: frozenset[str]) -> list[Typeface]:
    """The typefaces, each with the code points of ``scripts`` that it maps to a glyph.

    Args:
        scripts: first words of Unicode names, such as ``LATIN``.

    Raises:
        DataError: matplotlib is installed without its fonts, as some systems package it.
    """
    import matplotlib  # here, not above: it takes half a second to import
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
    """The first word of a letter's Unicode name.

    >>> script("բ")
    'ARMENIAN'
    """
    return unicodedata.name(letter, "?").split()[0]


def is_base_letter(letter: str) -> bool:
    """Whether this is a letter of its own: no accent, hook or stroke added, no styled copy, no click's bare bar.

    An accent is a few pixels at 28 x 28, and fonts have a dozen accented forms of each vowel: as classes of their own
    they would make tasks hopeless rather than hard.

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
    """Each letter of a typeface, cut to its ink: mode "L", ink 255 on 0.

    Letters that come out blank, tiny, or as the box which stands for a missing glyph, are left out.

    Args:
        pixels: font size; a capital is about 0.7 times as high.
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
    left, top, right, bottom = font.getbbox(letter)
    picture = Image.new("L", (int(right - left) + 8, int(bottom - top) + 8))  # room on all sides: nothing is clipped
    ImageDraw.Draw(picture).text((4 - left, 4 - top), letter, fill=255, font=font)
    box = picture.getbbox()
    return picture.crop(box) if box else None
