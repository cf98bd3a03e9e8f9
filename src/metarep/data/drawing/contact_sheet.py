"""A contact sheet: rows of images with two lines of text below each, as one PNG."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from metarep.data.drawing.fonts import Pen
from metarep.data.reading.decode import decode
from metarep.data.reading.folder_tree import shown
from metarep.errors import DataError, MetarepError

TILE, GAP, TEXT = 144, 12, 40  # pixels: an image, between images, for the text below one
COLUMNS = 8  # images a line; longer rows are wrapped
MOST_ROWS, MOST_IMAGES = 20, 1000
BLUE, ORANGE, GREY, INK = "#1f5a8c", "#c25a12", "#5f5f5f", "#222222"

Row = Sequence[tuple[str, str]]  # a path and what to write below it


def contact_sheet(rows: Sequence[Row], path: Path, *, first: str = "query") -> int:
    """Write a PNG with a row of images for each of ``rows``: at most 20 rows, and 1,000 images in all.

    A row of more than 8 images is wrapped; between rows is a thin line. Images are cut to their middle square, as an
    encoder sees them. One that can no longer be read is a grey tile. What is not shown is said in the last line.

    Args:
        rows: each the paths of images, and what to write below.
        path: where to write; its folder is made if need be.
        first: what the first image of a row is; it has a frame of its own. Empty for nothing in particular.

    Returns:
        How many rows are left out.

    Raises:
        MetarepError: the file cannot be written.
    """
    drawn = list(_first(rows, MOST_IMAGES))
    columns = min(COLUMNS, max(len(row) for row in drawn))
    lines = sum(-(-len(row) // columns) for row in drawn)
    pen = Pen(13, [shown(text) for row in drawn for name, own in row for text in (own, Path(name).name)])
    width = GAP + columns * (TILE + GAP)
    notes = [line for note in (_left_out(rows, drawn), pen.note) for line in pen.wrap(note, width - 2 * GAP)]
    foot = 20 * len(notes)
    sheet = Image.new("RGB", (width, GAP + lines * (TILE + TEXT + GAP) + foot), "white")
    draw, top = ImageDraw.Draw(sheet), GAP
    for number, row in enumerate(drawn):
        if number:
            draw.line((GAP, top - GAP // 2, width - GAP, top - GAP // 2), "#dddddd")
        for place, (name, text) in enumerate(row):
            line, column = divmod(place, columns)
            left, upper = GAP + column * (TILE + GAP), top + line * (TILE + TEXT + GAP)
            asked = bool(first) and place == 0
            sheet.paste(_tile(name, BLUE if asked else GREY, 4 if asked else 1), (left, upper))
            for below, content in enumerate([first if asked else text, Path(name).name]):
                colour = BLUE if asked else ORANGE if below == 0 else INK
                pen.write(draw, (left, upper + TILE + 3 + 17 * below), pen.fit(shown(content), TILE), colour)
        top += -(-len(row) // columns) * (TILE + TEXT + GAP)
    for number, note in enumerate(notes):
        pen.write(draw, (GAP, top - 6 + 20 * number), note, GREY)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, "PNG")
    except OSError as error:
        raise MetarepError(f"cannot write {path} ({error.strerror}); choose another place") from error
    return len(rows) - len(drawn)


def _first(rows: Sequence[Row], images: int) -> Iterator[Row]:
    """As much of the rows as there is room for."""
    for row in rows[:MOST_ROWS]:
        if images <= 0:
            return
        yield row[:images]
        images -= len(row)


def _left_out(rows: Sequence[Row], drawn: Sequence[Row]) -> str:
    """What is not shown: rows, and images of those that are."""
    images = sum(map(len, rows[: len(drawn)])) - sum(map(len, drawn))
    parts = [(len(rows) - len(drawn), "row"), (images, "image")]
    told = [f"{count:,} more {kind}{'s' * (count > 1)}" for count, kind in parts if count]
    return f"not shown: {' and '.join(told)}" if told else ""


def _tile(name: str, frame: str, width: int) -> Image.Image:
    side = TILE - 2 * width
    try:
        pixels = decode(Path(name), size=(side, side), channels=3, name=name)
    except DataError:
        return ImageOps.expand(Image.new("RGB", (side, side), "#dddddd"), width, frame)
    return ImageOps.expand(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))), width, frame)
