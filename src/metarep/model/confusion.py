"""Computes and draws the confusion matrix of a model on its own images, each from a fold that left it out."""

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

MOST_NUMBERS = 30  # classes; with more, a number would not fit into its square
MOST_NAMES = 150  # classes; with more, a name would not fit beside its row
FEW = 12  # classes; with so few, the numbers in the squares need no list beside them
LONGEST = 24  # letters of a name that are drawn
LIST, LINE = 3.4, 0.165  # inches: the width of the list beside the matrix, and the height of a line
DPI = 130


def confusion(model: Model) -> Float[Tensor, "ways ways"]:
    """Counts how often each class is taken for each other when its images are left out.

    Returns:
        The confusion matrix, shape ``(ways, ways)``, with a row for the true class and a column for the predicted one.
        An image that is left out several times counts 1 in all, so a count may be a fraction.

    >>> from metarep import Gallery
    >>> rows = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    >>> names = ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    >>> gallery = Gallery.empty().add(rows, ["moth", "moth", "fly", "fly"], names)
    >>> confusion(Model(None, {"name": "prototypes"}, gallery)).tolist()
    [[2.0, 0.0], [0.0, 2.0]]
    """
    held, ways = model.held_out, len(model.gallery.names)
    cells = model.gallery.classes[held.rows] * ways + held.scores.argmax(-1) if len(held.rows) else held.rows
    times = held.rows.bincount()[held.rows] if len(held.rows) else held.rows
    return torch.zeros(ways * ways).index_add(0, cells, 1 / times.float()).view(ways, ways)


def draw_confusion(model: Model, path: Path) -> bool:
    """Draws the confusion matrix of a model as PNG. Returns False, and writes nothing, if no image can be left out.

    >>> from metarep import Gallery
    >>> one_each = Gallery.empty().add(torch.eye(2), ["moth", "fly"], ["1.jpg", "2.jpg"])
    >>> draw_confusion(Model(None, {"name": "prototypes"}, one_each), Path("confusion.png"))
    False
    """
    counts = confusion(model)
    if not counts.sum():
        return False
    accuracy = model.trust.accuracy if model.trust.source == "leave-one-out" else None
    title = "images left out" + (f": {accuracy:.1f} % right expected" if accuracy is not None else "")
    draw_counts(counts, model.gallery.names, path, title=title)
    return True


def draw_counts(counts: Float[Tensor, "ways ways"], names: Sequence[str], path: Path, *, title: str) -> None:
    """Draws a confusion matrix as PNG, and beside it the pairs of classes that are confused most.

    Args:
        counts: the confusion matrix, with a row for the true class and a column for the predicted one.
        names: the names of the classes, in any script.
        path: the file to write.
        title: the title of the picture: what was counted.
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

        def add_axes(left: float, top: float, wide: float, high: float) -> "Axes":
            """Adds axes at a position in inches from the upper left corner.

            An automatic layout would measure every name, which takes seconds.
            """
            across, down = figure.get_size_inches()
            return figure.add_axes((left / across, 1 - (top + high) / down, wide / across, high / down))

        matrix, bar = add_axes(text, 0.45, side, side), add_axes(text + side + 0.2, 0.45, 0.14, min(side, 2.5))
        _draw_matrix(matrix, bar, counts, names, size)
        matrix.set_title(title, size=10, loc="left")
        if pairs:
            _draw_pairs(add_axes(text + side + 1.1, 0.45, LIST, side), counts, pairs, names, int(side / LINE) - 2)
        figure.text(0.01, 0.06 / height, note, size=6, color="#5f5f5f", va="bottom")
        figure.savefig(path)


def confused_pairs(counts: Float[Tensor, "ways ways"]) -> list[tuple[int, int]]:
    """Lists the pairs ``(true class, predicted class)`` that are confused, the most frequent first.

    Of equal counts, the larger share of the true class comes first.

    >>> confused_pairs(torch.tensor([[3.0, 1.0, 0.0], [0.0, 4.0, 0.0], [2.0, 0.0, 2.0]]))
    [(2, 0), (0, 1)]
    """
    wrong = counts.clone().fill_diagonal_(0)
    shares = wrong / counts.sum(1, keepdim=True).clamp_min(1)
    pairs = [(int(i), int(j)) for i, j in wrong.nonzero().tolist()]
    return sorted(pairs, key=lambda pair: (-float(wrong[pair]), -float(shares[pair]), pair))


def shorten(name: str) -> str:
    """Shortens a name so that it fits beside a row. A wide character counts as two letters.

    >>> shorten("a name that goes on and on and on")
    'a name that goes on and…'
    """
    end = next((i for i in range(len(name)) if _columns(name[: i + 1]) > LONGEST), None)
    return name if end is None else name[: end - 1].rstrip() + "…"


def _number(count: Tensor) -> str:
    """Formats a number of images, with one decimal if it is a fraction."""
    return f"{count.item():.1f}".removesuffix(".0")


def _columns(text: str) -> int:
    """Returns the width of a text in letters."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def _draw_matrix(
    axes: "Axes", bar: "Axes", counts: Float[Tensor, "ways ways"], names: Sequence[str], size: float
) -> None:
    """Draws the matrix as shares of each row, with names of ``size`` points (none if 0), and its colour bar."""
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
            label.set_parse_math(False)  # a $ in a name is a dollar sign, not a formula
    if ways > MOST_NUMBERS:
        for line in range(10, ways, 10):  # lines that help to follow a row or a column
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
    """Draws the list of confused pairs, with at most ``most`` lines."""
    axes.set_axis_off()
    lines = [
        f"{names[i]} → {names[j]}:  {_number(counts[i, j])} of {_number(counts[i].sum())}" for i, j in pairs[:most]
    ]
    if len(pairs) > most:
        lines.append(f"and {len(pairs) - most} more {'pair' if len(pairs) - most == 1 else 'pairs'}")
    style = {"transform": axes.transAxes, "va": "top", "parse_math": False}
    axes.text(0, 1, "confused most often (is → taken for)", size=8.5, **style)
    axes.text(0, 1, "\n\n" + "\n".join(lines), size=8, linespacing=1.4, **style)
