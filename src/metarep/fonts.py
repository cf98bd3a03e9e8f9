"""Fonts that have the letters of a text: names of classes and files are written in any script."""

from functools import cache
from pathlib import Path

from PIL import ImageFont

SIZE = 13  # pixels
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def font_for(text: str) -> Font:
    """Pillow's own font where it has the letters, else one of the system that has all of them, if there is one."""
    own = ImageFont.load_default(SIZE)
    if text.isascii():
        return own
    file = file_for(text)
    return own if file is None else ImageFont.truetype(file, SIZE)


def file_for(text: str) -> Path | None:
    """A font file of the system that has every letter; None if there is none."""
    wanted = frozenset(ord(letter) for letter in text if ord(letter) > 127)
    return next((file for file, has in _fonts() if wanted <= has), None)


def family_for(text: str) -> str | None:
    """The name that matplotlib knows such a font by."""
    from matplotlib import font_manager

    file = None if text.isascii() else file_for(text)
    return next((entry.name for entry in font_manager.fontManager.ttflist if file and Path(entry.fname) == file), None)


@cache
def _fonts() -> tuple[tuple[Path, frozenset[int]], ...]:
    """The regular fonts that matplotlib found, those with the most letters first."""
    from matplotlib import font_manager, ft2font

    found: dict[Path, frozenset[int]] = {}
    for entry in font_manager.fontManager.ttflist:
        if entry.style == "normal" and str(entry.weight) in ("400", "normal", "regular"):
            try:
                found[Path(entry.fname)] = frozenset(ft2font.FT2Font(entry.fname).get_charmap())
            except (OSError, RuntimeError):  # a font that is gone, or damaged
                continue
    return tuple(sorted(found.items(), key=lambda each: (-len(each[1]), each[0])))
