"""A contact sheet: rows of images with a line of text below each, as one PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from metarep.datasets.decode import decode
from metarep.datasets.folder_tree import shown
from metarep.errors import DataError, MetarepError
from metarep.fonts import font_for

TILE, GAP, TEXT = 144, 12, 40  # pixels: an image, between images, for the text below one
MOST_ROWS, MOST_COLUMNS = 20, 21
WRAP = 11  # images side by side: a query and ten hits
BLUE, ORANGE, GREY, INK = "#1f5a8c", "#c25a12", "#5f5f5f", "#222222"

Row = Sequence[tuple[str, str]]  # a path and what to write below it


def contact_sheet(rows: Sequence[Row], path: Path, *, first: str = "query") -> int:
    """Write a PNG with the images of each of ``rows``: at most 20 rows of 21. Returns how many rows are left out.

    More than ten images of a row go on below, so that the sheet fits a screen.

    Images are cut to their middle square, as an encoder sees them. One that can no longer be read is a grey tile.

    Args:
        rows: each the paths of images, and what to write below.
        path: where to write; its folder is made if need be.
        first: what the first image of a row is; it has a frame of its own. Empty for nothing in particular.

    Raises:
        MetarepError: the file cannot be written.
    """
    left_out = len(rows[MOST_ROWS:])
    rows = [row[:MOST_COLUMNS] for row in rows[:MOST_ROWS]]
    lines = [(row[at : at + WRAP], at) for row in rows for at in range(0, len(row), WRAP)]
    width = GAP + max(len(line) for line, _ in lines) * (TILE + GAP)
    sheet = Image.new("RGB", (width, GAP + len(lines) * (TILE + TEXT + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (row, at) in enumerate(lines):
        top = GAP + number * (TILE + TEXT + GAP)
        for column, (name, text) in enumerate(row):
            left = GAP + column * (TILE + GAP)
            asked = bool(first) and at + column == 0
            sheet.paste(_tile(name, BLUE if asked else GREY, 4 if asked else 1), (left, top))
            for line, content in enumerate([first if asked else text, Path(name).name]):
                font = font_for(content)
                colour = BLUE if asked else ORANGE if line == 0 else INK
                draw.text((left, top + TILE + 3 + 17 * line), _fit(shown(content), font), colour, font)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, "PNG")
    except OSError as error:
        raise MetarepError(f"cannot write {path} ({error.strerror}); choose another place") from error
    return left_out


def _tile(name: str, frame: str, width: int) -> Image.Image:
    side = TILE - 2 * width
    try:
        pixels = decode(Path(name), size=(side, side), channels=3, name=name)
    except DataError:
        return ImageOps.expand(Image.new("RGB", (side, side), "#dddddd"), width, frame)
    return ImageOps.expand(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))), width, frame)


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, its middle left out if it is wider than a tile."""
    whole = text
    for kept in range(len(whole) - 1, 0, -1):
        if font.getlength(text) <= TILE:
            break
        text = f"{whole[: kept // 2]}…{whole[len(whole) - (kept - kept // 2) :]}"
    return text
