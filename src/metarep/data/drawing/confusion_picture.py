"""Draw a confusion matrix: a square for each pair of classes, and beside it the pairs that are confused most."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from unicodedata import east_asian_width

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from metarep.data.drawing.fonts import Pen
from metarep.errors import counted

MOST_WIDE = 40  # classes with squares of WIDE pixels, into which a number fits
MOST_NARROW = 150  # classes with squares of NARROW pixels; with more, some of the names stand beside their rows
FEW = 12  # classes; with so few, the numbers in the squares need no list beside them
LONGEST = 24  # letters of a name that are drawn
WIDE, NARROW, LEAST, MOST = 36, 18, 364, 1560  # pixels: the sides of a square, and of the whole matrix
GAP, TICK = 12, 5  # pixels: space between two parts, length of a tick
BAR, BAR_HIGH = 18, 325  # pixels: width and height of the colour bar, which is less than that of any matrix
INK, PALE, RULE = "#222222", "#5f5f5f", "#dddddd"
# Colours of shares from 0 to 1: nine blues of ColorBrewer, with straight lines between them.
BLUES = ("f7fbff", "deebf7", "c6dbef", "9ecae1", "6baed6", "4292c6", "2171b5", "08519c", "08306b")


class _Place(NamedTuple):
    """Where the matrix stands in the picture, in pixels, and how many classes it has."""

    left: int
    top: int
    side: int
    ways: int

    def middle(self, number: int) -> int:
        """The middle of the row or column of a class, from the edge of the matrix."""
        return int((number + 0.5) * self.side / self.ways)


def draw_counts(counts: Float[Tensor, "ways ways"], names: Sequence[str], path: Path, *, title: str) -> None:
    """Draw a confusion matrix as PNG, and beside it the pairs of classes that are confused most.

    Args:
        counts: the confusion matrix, with a row for the true class and a column for the predicted one.
        names: the names of the classes, in any script.
        path: the file to write.
        title: the title of the picture: what was counted.
    """
    ways, names = len(counts), [shorten(name) for name in names]
    side = max(LEAST, WIDE * ways) if ways <= MOST_WIDE else NARROW * ways if ways <= MOST_NARROW else MOST
    small, plain = Pen(13 if ways <= MOST_WIDE else 12, names), Pen(14, [title, *names])
    line, long = plain.height + 3, max(map(small.width, names))
    place = _Place(int(GAP + plain.height + long + 2 * TICK + GAP / 2), 2 * GAP + plain.height, side, ways)
    pairs, more = _table(counts, names, side // line - 2) if ways > FEW else ([], "")
    columns = [max(plain.width(cells[i]) for cells in pairs) + GAP for i in range(3)] if pairs else []
    beyond = place.left + side + GAP + BAR + TICK + plain.width("0.0") + plain.height + 2 * GAP  # the list begins here
    below, foot = place.top + side + 2 * TICK, place.top + side + TICK + GAP + plain.height + long
    wide = max(beyond + sum(columns) + GAP, place.left + plain.width(title) + GAP)
    notes = plain.wrap(plain.note, wide - 2 * GAP)
    picture = Image.new("RGB", (int(wide), int(foot + GAP + line * len(notes))), "white")

    draw, shares = ImageDraw.Draw(picture), counts / counts.sum(1, keepdim=True).clamp_min(1)
    _draw_shares(picture, draw, place, shares)
    _draw_names(picture, draw, place, small, names)
    if ways <= MOST_WIDE:
        _draw_numbers(draw, place, small, counts, shares)
    _draw_bar(picture, draw, plain, (place.left + side + GAP, place.top))
    plain.write(draw, (place.left, GAP), title, INK)
    plain.write(draw, (place.left + (side - plain.width("taken for")) / 2, below + long + GAP / 2), "taken for", INK)
    _write_upright(picture, plain, (GAP // 2 + plain.height // 2, place.top + side // 2), "is", INK)
    plain.write(draw, (beyond, GAP), "confused most often" if pairs else "", INK)
    for number, cells in enumerate(pairs):
        for i, text in enumerate(cells):
            at = beyond + sum(columns[:i]), place.top + line * number
            plain.write(draw, at, text, INK if number else PALE)
    plain.write(draw, (beyond, place.top + line * len(pairs)), more, PALE)
    for number, note in enumerate(notes):
        plain.write(draw, (GAP, foot + line * number), note, PALE)
    picture.save(path, "PNG")


def confused_pairs(counts: Float[Tensor, "ways ways"]) -> list[tuple[int, int]]:
    """List the pairs ``(true class, predicted class)`` that are confused, the most frequent first.

    Of equal counts, the larger share of the true class comes first.

    >>> confused_pairs(torch.tensor([[3.0, 1.0, 0.0], [0.0, 4.0, 0.0], [2.0, 0.0, 2.0]]))
    [(2, 0), (0, 1)]
    """
    wrong = counts.clone().fill_diagonal_(0)
    where = wrong.nonzero(as_tuple=True)
    shares = (wrong / counts.sum(1, keepdim=True).clamp_min(1))[where]
    pairs = sorted(zip((-wrong[where]).tolist(), (-shares).tolist(), *(each.tolist() for each in where), strict=True))
    return [(true, predicted) for _, _, true, predicted in pairs]


def shorten(name: str) -> str:
    """Shorten a name to one line that fits beside a row. A wide character counts as two letters.

    >>> shorten("a name that goes on and on and on")
    'a name that goes on and…'
    """
    name = " ".join(name.split())
    end = next((i for i in range(len(name)) if _columns(name[: i + 1]) > LONGEST), None)
    return name if end is None else name[: end - 1].rstrip() + "…"


def _columns(text: str) -> int:
    """The width of a text in letters."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def _number(count: Tensor) -> str:
    """A number of images, with one decimal if it is a fraction."""
    return f"{count.item():.1f}".removesuffix(".0")


def _table(
    counts: Float[Tensor, "ways ways"], names: Sequence[str], most: int
) -> tuple[list[tuple[str, str, str]], str]:
    """The list of confused pairs: a heading and at most ``most`` pairs; and how many more there are, in words."""
    pairs = confused_pairs(counts)
    lines = [(names[i], names[j], f"{_number(counts[i, j])} of {_number(counts[i].sum())}") for i, j in pairs[:most]]
    more = len(pairs) - len(lines)
    rest = f"and {counted(more, 'more pair')}" if more else ""
    return [("is", "taken for", "images"), *lines] if lines else [], rest


def _blue(shares: Float[Tensor, "*rest"]) -> np.ndarray:
    """The colour of each share, uint8 with a last dimension of 3."""
    stops = np.array([list(bytes.fromhex(blue)) for blue in BLUES])
    at = shares.clamp(0, 1).numpy() * (len(BLUES) - 1)
    return np.stack([np.interp(at, range(len(BLUES)), stop) for stop in stops.T], -1).round().astype(np.uint8)


def _draw_shares(
    picture: Image.Image, draw: ImageDraw.ImageDraw, place: _Place, shares: Float[Tensor, "ways ways"]
) -> None:
    """Draw a square for each pair of classes; and lines between some of them, which help to follow a row."""
    left, top, side, ways = place
    resample = Image.Resampling.NEAREST if ways <= side else Image.Resampling.BOX
    picture.paste(Image.fromarray(_blue(shares)).resize((side, side), resample), (left, top))
    for number in range(10, ways, 10) if MOST_WIDE < ways <= MOST_NARROW else ():
        at = number * side // ways
        draw.line([(left, top + at), (left + side, top + at)], RULE)
        draw.line([(left + at, top), (left + at, top + side)], RULE)
    draw.rectangle((left - 1, top - 1, left + side, top + side), outline=INK)


def _draw_names(picture: Image.Image, draw: ImageDraw.ImageDraw, place: _Place, pen: Pen, names: Sequence[str]) -> None:
    """Write the names of as many classes as there is room for, left of the rows and below the columns."""
    left, top, side, ways = place
    for number in range(0, ways, -(-NARROW * ways // side)):
        at, name = place.middle(number), names[number]
        draw.line([(left - TICK, top + at), (left, top + at)], INK)
        draw.line([(left + at, top + side), (left + at, top + side + TICK)], INK)
        pen.write(draw, (left - 2 * TICK - pen.width(name), top + at - pen.height / 2), name, INK)
        _write_upright(picture, pen, (left + at, top + side + 2 * TICK), name, INK)


def _draw_numbers(
    draw: ImageDraw.ImageDraw,
    place: _Place,
    pen: Pen,
    counts: Float[Tensor, "ways ways"],
    shares: Float[Tensor, "ways ways"],
) -> None:
    """Write the numbers of images into the squares, but for those that would not fit."""
    for row, column in counts.nonzero().tolist():
        text, colour = _number(counts[row, column]), "white" if shares[row, column] > 0.55 else INK
        if (width := pen.width(text)) < place.side / place.ways:
            across, down = place.left + place.middle(column), place.top + place.middle(row)
            pen.write(draw, (across - width / 2, down - pen.height / 2), text, colour)


def _write_upright(picture: Image.Image, pen: Pen, at: tuple[int, int], text: str, colour: str) -> None:
    """Write a line of text that is read from below to above, and leave what is behind it.

    Args:
        picture: the picture to write into.
        pen: writes the text.
        at: the middle of the line across, and its upper end.
        text: the line.
        colour: a colour as Pillow takes it.
    """
    high = 2 * pen.height  # accents may stand above the height of a line
    line = Image.new("L", (int(pen.width(text)) + 2, high))
    pen.write(ImageDraw.Draw(line), (1, pen.height // 2), text, "white")
    turned = line.transpose(Image.Transpose.ROTATE_90)
    picture.paste(colour, (at[0] - high // 2, at[1]), turned)


def _draw_bar(picture: Image.Image, draw: ImageDraw.ImageDraw, pen: Pen, corner: tuple[int, int]) -> None:
    """Draw the colours of the shares from 1 down to 0, with their values."""
    left, top = corner
    colours = _blue(torch.linspace(1, 0, BAR_HIGH).view(-1, 1).expand(-1, BAR))
    picture.paste(Image.fromarray(colours), (left, top))
    draw.rectangle((left - 1, top - 1, left + BAR, top + BAR_HIGH), outline=INK)
    for tenth in range(0, 11, 2):
        at = top + BAR_HIGH - BAR_HIGH * tenth // 10
        draw.line([(left + BAR, at), (left + BAR + TICK, at)], INK)
        pen.write(draw, (left + BAR + 2 * TICK, at - pen.height / 2), f"{tenth / 10:.1f}", INK)
    across = left + BAR + 2 * TICK + int(pen.width("0.0")) + GAP // 2 + pen.height // 2
    title = "share of the class"
    _write_upright(picture, pen, (across, top + int(BAR_HIGH - pen.width(title)) // 2), title, PALE)
