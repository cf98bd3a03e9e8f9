"""Choose fonts that have the characters of a text. Class names may be in any script, and a default font has few."""

import unicodedata
import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

# Of the fonts that have a character, these are preferred: they are readable at small sizes and have many scripts. These
# are the starts of file names, in lower case, letters and digits only.
PREFERRED = ("notosanscjk", "notosanssc", "sourcehansans", "pingfang", "hiragino", "msyh", "wqy", "droidsansfallback")
PREFERRED = (*PREFERRED, "simhei", "malgun", "applesdgothic", "notosans", "dejavusans", "freesans", "arialunicode")
STYLES = ("bold", "italic", "oblique", "mono", "serif", "black", "light", "thin", "condensed", "display")
SELECTORS = frozenset(map(chr, range(0xFE00, 0xFE10)))  # variation selectors: they are not drawn themselves


def choose_fonts(texts: Iterable[str], has: Collection[str]) -> tuple[list[str], str]:
    """Choose fonts on this machine for the characters that a first font lacks.

    Args:
        texts: the texts to write.
        has: the characters of the first font.

    Returns:
        The font files, and the characters that no font has, sorted.

    >>> choose_fonts(["moth", "fly"], set("abcdefghijklmnopqrstuvwxyz"))
    ([], '')
    """
    letters = {letter for text in texts for letter in text if unicodedata.category(letter)[0] not in "CZ"}
    missing, chosen = letters - SELECTORS - set(has), list[str]()
    for file in installed() if missing else ():
        if covered := missing & characters(file):
            chosen.append(file)
            missing -= covered
            if not missing:
                break
    return chosen, "".join(sorted(missing))


def note_on(missing: str) -> str:
    """Word the note below a picture in which these characters are drawn as boxes; empty if there are none.

    >>> note_on("ก")
    'Boxes: no font of this machine has one of the characters; try Noto Sans for their script.'

    >>> note_on("")
    ''
    """
    if not missing:
        return ""
    wide = any(
        unicodedata.category(letter) == "Lo" and unicodedata.east_asian_width(letter) == "W" for letter in missing
    )
    font = "Noto Sans CJK (package fonts-noto-cjk)" if wide else "Noto Sans for their script"
    what = f"{len(missing)} of the characters" if len(missing) > 1 else "one of the characters"
    return f"Boxes: no font of this machine has {what}; try {font}."


@contextmanager
def matplotlib_fonts(texts: Iterable[str]) -> Iterator[str]:
    """Context in which matplotlib writes each character in a font that has it, and does not warn of missing ones.

    Args:
        texts: the texts to write.

    Yields:
        The note on characters that no font has; see :func:`note_on`.
    """
    import matplotlib
    from matplotlib.font_manager import FontProperties, findfont, fontManager

    chosen, missing = choose_fonts(texts, characters(str(findfont(FontProperties()))))
    families = list(matplotlib.rcParams["font.family"])
    for file in chosen:
        fontManager.addfont(file)  # its own list may be older than the font
        families.append(FontProperties(fname=file).get_name())
    with matplotlib.rc_context({"font.family": families}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield note_on(missing)


class Pen:
    """Writes lines of text into a Pillow picture, each character in a font that has it.

    Args:
        size: font size in pixels.
        texts: all texts that will be written; the fonts are chosen for them.

    Attributes:
        height: height of a line in pixels.
        note: the note on characters that no font has; see :func:`note_on`.
    """

    def __init__(self, size: int, texts: Iterable[str]) -> None:
        first = ImageFont.load_default(size)
        assert isinstance(first, ImageFont.FreeTypeFont), "Pillow without FreeType"
        texts = list(texts)
        letters = {*map(chr, range(32, 127)), "…", *"".join(texts)}
        has = {letter for letter in letters if _draws(first, letter)}
        chosen, missing = choose_fonts(texts, has)
        self.note, self.height = note_on(missing), sum(first.getmetrics())
        self._fonts = [(first, has)] + [(ImageFont.truetype(file, size), characters(file)) for file in chosen]

    def width(self, text: str) -> float:
        """The width of a line of text in pixels."""
        return sum(font.getlength(run) for font, run in self._runs(text))

    def write(self, draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, colour: str) -> None:
        """Write a line of text.

        Args:
            draw: the picture to write into.
            at: the upper left corner of the line, in pixels.
            text: the line.
            colour: a colour as Pillow takes it.
        """
        left, base = at[0], at[1] + self._fonts[0][0].getmetrics()[0]  # all fonts share one base line
        for font, run in self._runs(text):
            draw.text((left, base), run, colour, font, anchor="ls")
            left += font.getlength(run)

    def fit(self, text: str, width: float) -> str:
        """Shorten a text to ``width`` pixels: an ellipsis replaces its middle if it is wider."""
        whole = text
        for kept in range(len(whole) - 1, 0, -1):
            if self.width(text) <= width:
                break
            text = f"{whole[: kept // 2]}…{whole[len(whole) - (kept - kept // 2) :]}"
        return text

    def wrap(self, text: str, width: float) -> list[str]:
        """Break a text between words into lines of at most ``width`` pixels."""
        lines = [""]
        for word in text.split():
            longer = f"{lines[-1]} {word}".strip()
            if self.width(longer) <= width:
                lines[-1] = longer
            else:
                lines.append(word)
        return [self.fit(line, width) for line in lines if line]

    def _runs(self, text: str) -> list[tuple[ImageFont.FreeTypeFont, str]]:
        """Split a text into runs of characters that are written in the same font: one run if a font has them all."""
        for font, has in self._fonts:
            if has.issuperset(text):
                return [(font, text)]
        runs: list[tuple[ImageFont.FreeTypeFont, str]] = []
        for letter in text:
            font = next((font for font, has in self._fonts if letter in has), self._fonts[0][0])
            if runs and (runs[-1][0] is font or unicodedata.combining(letter)):
                runs[-1] = (runs[-1][0], runs[-1][1] + letter)
            else:
                runs.append((font, letter))
        return runs


@lru_cache(maxsize=1)
def installed() -> tuple[str, ...]:
    """The font files on this machine and those that ship with matplotlib, preferred and regular ones first."""
    import matplotlib
    from matplotlib.font_manager import findSystemFonts

    shipped = (Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("DejaVuSans*.ttf")
    return tuple(sorted([*findSystemFonts(), *map(str, shipped)], key=_rank))


def _rank(file: str) -> tuple[int, bool, str]:
    """Sort key of a font file: its position in ``PREFERRED``, whether it is a styled cut, and its path."""
    name = "".join(filter(str.isalnum, Path(file).stem.lower()))
    position = next((i for i, start in enumerate(PREFERRED) if name.startswith(start)), len(PREFERRED))
    return position, any(word in name for word in STYLES), file


@lru_cache(maxsize=4096)
def characters(file: str) -> frozenset[str]:
    """The characters of a font file; empty if it cannot be read, or is a bitmap font of one size."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(file)
        return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
    except (OSError, RuntimeError):
        return frozenset()


def _draws(font: ImageFont.FreeTypeFont, letter: str) -> bool:
    """Whether a font has a character: it draws it otherwise than the box for a missing glyph."""
    return letter == " " or _picture(font, letter) != _picture(font, "\ue123")


def _picture(font: ImageFont.FreeTypeFont, letter: str) -> bytes:
    """The pixels of a character, 32 x 32 of one byte."""
    picture = Image.new("L", (32, 32))
    ImageDraw.Draw(picture).text((4, 4), letter, 255, font)
    return picture.tobytes()
