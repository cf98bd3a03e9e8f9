"""Draw wrong answers: each query beside the class that it was taken for and the class that it is."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from metarep.data.drawing.fonts import Pen

TILE, GAP, TEXT = 96, 8, 18  # pixels: side of an image, space between two, height of the text below one
ACROSS = 3  # answers in a line
COLOURS = ("#1f5a8c", "#c25a12", "#3c7a3c")  # of the query, of what it was taken for, of what it is

Tile = tuple[UInt8[Tensor, "c h w"], str]


def answer_sheet(answers: Sequence[tuple[Tile, Tile, Tile]], path: Path) -> None:
    """Write a PNG with three images for each wrong answer: the query, the class that was given, and the right class.

    Args:
        answers: at least one; each image with the text below it.
        path: the file to write. Its folder is made if it does not exist.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    wide, high = 3 * (TILE + GAP) + 2 * GAP, TILE + TEXT + 2 * GAP
    lines = -(-len(answers) // ACROSS)
    sheet = Image.new("RGB", (GAP + min(ACROSS, len(answers)) * wide, GAP + lines * high), "white")
    draw, pen = ImageDraw.Draw(sheet), Pen(11, [text for answer in answers for _, text in answer])
    for number, answer in enumerate(answers):
        line, column = divmod(number, ACROSS)
        for place, (pixels, text) in enumerate(answer):
            left, top = GAP + column * wide + place * (TILE + GAP), GAP + line * high
            array = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy().repeat(3 // len(pixels), axis=2))
            sheet.paste(Image.fromarray(array).resize((TILE, TILE), Image.Resampling.NEAREST), (left, top))
            draw.rectangle((left - 1, top - 1, left + TILE, top + TILE), outline=COLOURS[place], width=2)
            pen.write(draw, (left, top + TILE + 3), pen.fit(text, TILE), COLOURS[place])
    sheet.save(path)
