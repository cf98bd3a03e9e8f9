"""Draw a contact sheet: one PNG with rows of images and two lines of text below each image."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from metarep.data.drawing.fonts import Pen
from metarep.data.reading.decode import decode
from metarep.data.reading.folder_tree import shown
from metarep.errors import DataError, MetarepError, counted

TILE, GAP, TEXT = 144, 12, 40  # pixels: side of an image, space between two, height of the text below one
COLUMNS = 8  # images in a line; longer rows are wrapped
MOST_ROWS, MOST_IMAGES = 20, 1000
BLUE, ORANGE, GREY, INK = "#1f5a8c", "#c25a12", "#5f5f5f", "#222222"

Row = Sequence[tuple[str, str]]  # the path of each image, and the text below it


def contact_sheet(rows: Sequence[Row], path: Path, *, first: str = "query") -> int:
    """Write a PNG with one row of images for each of ``rows``: at most 20 rows, and 1,000 images in all.

    A row of more than 8 images is wrapped. A thin line separates two rows. Images are cut to their middle square, as an
    encoder sees them. An image that cannot be read any more is a grey tile. The last line says how many images and rows
    are not shown.

    Args:
        rows: the rows; each image is a path and the text below it.
        path: the file to write. Its folder is made if it does not exist.
        first: the text below the first image of each row, which gets a blue frame; empty if the first is not special.

    Returns:
        The number of rows that are not shown.

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
        for position, (name, text) in enumerate(row):
            line, column = divmod(position, columns)
            left, upper = GAP + column * (TILE + GAP), top + line * (TILE + TEXT + GAP)
            query = bool(first) and position == 0
            sheet.paste(_tile(name, BLUE if query else GREY, 4 if query else 1), (left, upper))
            for below, content in enumerate([first if query else text, Path(name).name]):
                colour = BLUE if query else ORANGE if below == 0 else INK
                pen.write(draw, (left, upper + TILE + 3 + 17 * below), pen.fit(shown(content), TILE), colour)
        top += -(-len(row) // columns) * (TILE + TEXT + GAP)
    for number, note in enumerate(notes):
        pen.write(draw, (GAP, top - 6 + 20 * number), note, GREY)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, "PNG")
    except OSError as error:
        raise MetarepError(f"cannot write {path} ({error.strerror}); choose another path") from error
    return len(rows) - len(drawn)


def _first(rows: Sequence[Row], images: int) -> Iterator[Row]:
    """Yield the first rows, cut to ``images`` images in all."""
    for row in rows[:MOST_ROWS]:
        if images <= 0:
            return
        yield row[:images]
        images -= len(row)


def _left_out(rows: Sequence[Row], drawn: Sequence[Row]) -> str:
    """The note on rows that are not shown, and on images of the shown rows that are not; empty if all are."""
    images = sum(map(len, rows[: len(drawn)])) - sum(map(len, drawn))
    parts = [(len(rows) - len(drawn), "row"), (images, "image")]
    counts = [counted(count, f"more {kind}") for count, kind in parts if count]
    return f"not shown: {' and '.join(counts)}" if counts else ""


def _tile(name: str, frame: str, width: int) -> Image.Image:
    """One image in a frame of the given colour and width; a grey tile if it cannot be read."""
    side = TILE - 2 * width
    try:
        pixels = decode(Path(name), size=(side, side), channels=3, name=name)
    except DataError:
        return ImageOps.expand(Image.new("RGB", (side, side), "#dddddd"), width, frame)
    return ImageOps.expand(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))), width, frame)
