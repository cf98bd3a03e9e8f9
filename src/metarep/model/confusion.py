"""A picture of what a model takes for what when each of its images is left out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import east_asian_width

import torch
from jaxtyping import Float
from torch import Tensor

from metarep.data.drawing.fonts import matplotlib_fonts
from metarep.model.model import Model

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_NUMBERS = 30  # classes; with more, numbers would be larger than their squares
MOST_NAMES = 150  # classes; with more, names would be larger than their rows
FEW = 12  # classes; the numbers in their squares are all there is to say
LONGEST = 24  # characters of a name
LIST, LINE = 3.4, 0.165  # inches: the list beside the matrix, and a line of it
DPI = 130


def confusion(model: Model) -> Float[Tensor, "ways ways"]:
    """How many images of the class of each row are taken for that of each column when they are left out.

    An image that is left out several times counts once in all.
    """
    held, ways = model.held_out, len(model.gallery.names)
    told = model.gallery.classes[held.rows] * ways + held.scores.argmax(-1) if len(held.rows) else held.rows
    times = held.rows.bincount()[held.rows] if len(held.rows) else held.rows
    return torch.zeros(ways * ways).index_add(0, told, 1 / times.float()).view(ways, ways)


def draw_confusion(model: Model, path: Path) -> bool:
    """Draw the confusion matrix as PNG; False, and no picture, where no image could be left out."""
    counts = confusion(model)
    if not counts.sum():
        return False
    accuracy = model.trust.accuracy if model.trust.source == "leave-one-out" else None
    title = "images left out" + (f": {accuracy:.1f} % right expected" if accuracy is not None else "")
    draw_counts(counts, model.gallery.names, path, title=title)
    return True


def draw_counts(counts: Float[Tensor, "ways ways"], names: Sequence[str], path: Path, *, title: str) -> None:
    """Draw how often each class is taken for each other as PNG, and beside it the pairs that are confused most.

    Args:
        counts: a row for what an image is, a column for what it was taken for.
        names: of the classes, in any script.
        path: where to write.
        title: what was counted.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ways, names = len(counts), [shorten(name) for name in names]
    pairs = confused_pairs(counts) if ways > FEW else []
    row = 0.28 if ways <= 40 else 0.14 if ways <= MOST_NAMES else 12 / ways  # inches
    size = (7.0 if ways <= 40 else 5.5) if ways <= MOST_NAMES else 0.0
    side, text = max(row * ways, 2.8), 0.45 + max(map(_columns, names)) * size * 0.62 / 72
    width, height = text + side + 1 + (LIST if pairs else 0.2), 0.45 + side + text + 0.2
    with matplotlib_fonts(names) as note:
        figure = Figure((max(width, 4.2), height), dpi=DPI)
        FigureCanvasAgg(figure)

        def place(left: float, top: float, wide: float, high: float) -> "Axes":
            """Axes in inches from the upper left corner; a layout that measures every name takes seconds."""
            across, down = figure.get_size_inches()
            return figure.add_axes((left / across, 1 - (top + high) / down, wide / across, high / down))

        matrix, bar = place(text, 0.45, side, side), place(text + side + 0.2, 0.45, 0.14, min(side, 2.5))
        _draw_matrix(matrix, bar, counts, names, size)
        matrix.set_title(title, size=10, loc="left")
        if pairs:
            _draw_pairs(place(text + side + 1.1, 0.45, LIST, side), counts, pairs, names, int(side / LINE) - 2)
        figure.text(0.01, 0.06 / height, note, size=6, color="#5f5f5f", va="bottom")
        figure.savefig(path)


def confused_pairs(counts: Float[Tensor, "ways ways"]) -> list[tuple[int, int]]:
    """What is taken for something else, and for what: the most often first.

    >>> confused_pairs(torch.tensor([[3.0, 1.0, 0.0], [0.0, 4.0, 0.0], [2.0, 0.0, 2.0]]))
    [(2, 0), (0, 1)]
    """
    wrong = counts.clone().fill_diagonal_(0)
    shares = wrong / counts.sum(1, keepdim=True).clamp_min(1)
    found = [(int(i), int(j)) for i, j in wrong.nonzero().tolist()]
    return sorted(found, key=lambda pair: (-float(wrong[pair]), -float(shares[pair]), pair))


def shorten(name: str) -> str:
    """A name that fits beside a row; a wide character counts twice.

    >>> shorten("a name that goes on and on and on")
    'a name that goes on and…'
    """
    place = next((place for place in range(len(name)) if _columns(name[: place + 1]) > LONGEST), None)
    return name if place is None else name[: place - 1].rstrip() + "…"


def _number(count: Tensor) -> str:
    """Of images; an image that was left out several times may count a part for each of several classes."""
    return f"{count.item():.1f}".removesuffix(".0")


def _columns(text: str) -> int:
    """How wide a text is, in letters."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def _draw_matrix(
    axes: "Axes", bar: "Axes", counts: Float[Tensor, "ways ways"], names: Sequence[str], size: float
) -> None:
    ways = len(counts)
    shares = (counts / counts.sum(1, keepdim=True).clamp_min(1)).numpy()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if ways <= MOST_NUMBERS:
        for row, column in counts.nonzero().tolist():
            light = "white" if shares[row, column] > 0.5 else "black"
            text = _number(counts[row, column])
            axes.text(column, row, text, ha="center", va="center", color=light, size=7)
    if size:
        axes.set_xticks(range(ways), names, rotation=90, size=size)
        axes.set_yticks(range(ways), names, size=size)
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            label.set_parse_math(False)  # a $ in a name is a dollar, not a formula
    if ways > MOST_NUMBERS:
        for line in range(10, ways, 10):  # to follow a row or a column by
            axes.axhline(line - 0.5, color="#dddddd", lw=0.4)
            axes.axvline(line - 0.5, color="#dddddd", lw=0.4)
    axes.set_xlabel("taken for", size=9)
    axes.set_ylabel("is", size=9)
    figure = axes.get_figure()
    assert figure is not None
    figure.colorbar(image, cax=bar).set_label("share of the class", size=8)
    bar.tick_params(labelsize=7)


def _draw_pairs(
    axes: "Axes",
    counts: Float[Tensor, "ways ways"],
    pairs: Sequence[tuple[int, int]],
    names: Sequence[str],
    most: int,
) -> None:
    axes.set_axis_off()
    lines = [
        f"{names[i]} → {names[j]}:  {_number(counts[i, j])} of {_number(counts[i].sum())}" for i, j in pairs[:most]
    ]
    if len(pairs) > most:
        lines.append(f"and {len(pairs) - most} more {'pair' if len(pairs) - most == 1 else 'pairs'}")
    style = {"transform": axes.transAxes, "va": "top", "parse_math": False}
    axes.text(0, 1, "confused most often (is → taken for)", size=8.5, **style)
    axes.text(0, 1, "\n\n" + "\n".join(lines), size=8, linespacing=1.4, **style)
