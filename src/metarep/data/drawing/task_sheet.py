"""Draw a picture of sampled tasks, with a support and a query image of each class."""

import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from metarep.data.drawing.fonts import matplotlib_fonts
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.task_index import TaskIndex
from metarep.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TASKS = 6  # shown at most
WAYS = 10  # classes shown of each task, at most
DPI = 150
TILE = 96  # height and width of an image with its frame, in pixels
CELL = (TILE + 8) / DPI  # inches from one image to the next
LINES = 3  # of a class name, at most
# In inches: the margin of the page, then the space for the heading, for class names, and left of the rows.
MARGIN, TITLE, NAMES, SIDE = 0.2, 0.5, 0.42, 0.62
BLUE, ORANGE, GREY = "#1f5a8c", "#c25a12", "#5f5f5f"


def task_picture(bank: ImageBank, labels: Labels, tasks: TaskIndex, path: Path) -> None:
    """Write a PNG of the first tasks: a column for each class, with a support image, a query image and the name.

    It shows at most 6 tasks, 10 classes of each, and the first support and query image of each class. The heading
    gives the real numbers.

    Args:
        bank: the pixels.
        labels: the names of the classes.
        tasks: the tasks; support and query are rows of ``bank``.
        path: the file to write. Its folder is made if it does not exist.

    Raises:
        DataError: there are no tasks, or the file cannot be written.
    """
    if not len(tasks):
        raise DataError("there are no tasks to show; draw at least one")
    from matplotlib.figure import Figure  # slow to import. pyplot would keep every figure and might open a window

    number, ways = min(TASKS, len(tasks)), min(WAYS, tasks.ways)
    across = 2 if number > 1 and ways <= 5 else 1
    width, height = SIDE + ways * CELL + MARGIN, (2 if tasks.queries else 1) * CELL + NAMES + 0.35
    rest = f", {tasks.ways - ways} classes of each not shown" if tasks.ways > ways else ""
    heading = f"{tasks.ways}-way {tasks.shots}-shot tasks with {tasks.queries} queries a class{rest}"
    wide = max(MARGIN + across * width, 2 * MARGIN + 0.09 * len(heading))
    page = wide, TITLE + math.ceil(number / across) * height + MARGIN / 2
    written = [labels.names[row] for row in tasks.classes[:number, :ways].flatten().tolist()]
    with matplotlib_fonts(written) as note:
        figure = Figure(figsize=page, dpi=DPI, facecolor="white")
        _write(figure, MARGIN, MARGIN + 0.05, heading, size=11, weight="bold", va="center")
        for task in range(number):
            corner = MARGIN + task % across * width, TITLE + task // across * height
            _draw_task(figure, bank, labels, tasks[task : task + 1], ways, corner, f"task {task + 1}")
        if note:
            _write(figure, MARGIN, page[1] - 0.06, note, size=6, color=GREY, va="bottom")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=DPI, format="png")
        except OSError as error:
            raise DataError(f"cannot write {path} ({error.strerror}); choose another path") from error


def _draw_task(
    figure: "Figure",
    bank: ImageBank,
    labels: Labels,
    task: TaskIndex,
    ways: int,
    corner: tuple[float, float],
    title: str,
) -> None:
    """Draw one task; ``corner`` is its upper left corner in inches from the upper left corner of the page."""
    left, top = corner[0] + SIDE, corner[1]
    _write(figure, left, top, title, size=8, color=GREY, va="top")
    top += 0.17
    strips = [("support", task.support[0], task.support_y[0], BLUE), ("query", task.query[0], task.query_y[0], ORANGE)]
    for label, rows, classes, colour in strips[: 2 if task.queries else 1]:
        first = torch.stack([rows[classes == way][0] for way in range(ways)])
        tiles = [_tile(pixels, colour) for pixels in bank.pixels(first).cpu()]
        _write(figure, left - 0.08, top + CELL / 2, label, size=8, color=colour, ha="right", va="center")
        for way, tile in enumerate(tiles):
            x, y = round((left + way * CELL) * DPI), round(figure.get_figheight() * DPI - top * DPI - TILE)
            figure.figimage(tile, x, y)  # pixel for pixel; an axis would resample the image
        top += CELL
    for way in range(ways):
        x = left + way * CELL + TILE / DPI / 2
        _write(figure, x, top, _wrap(labels.names[int(task.classes[0, way])]), size=6, va="top", ha="center")


def _tile(pixels: UInt8[Tensor, "c h w"], colour: str) -> np.ndarray:
    """Scale one image to the size of a tile, in a frame of the given colour: uint8 ``(TILE, TILE, 3)``."""
    array = pixels.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
    inner = TILE - 4
    # Bicubic rather than nearest: the tile is not a multiple of 28 pixels, and pixels of uneven size look broken.
    picture = ImageOps.pad(Image.fromarray(array), (inner, inner), Image.Resampling.BICUBIC, color="white")
    return np.asarray(ImageOps.expand(picture, 2, colour))


def _wrap(name: str) -> str:
    """Break a class name into short lines, at most ``LINES`` of them; a slash starts a new line."""
    lines = [line for part in name.split("/") for line in textwrap.wrap(part, 13)]
    return "\n".join(lines if len(lines) <= LINES else [*lines[: LINES - 1], lines[LINES - 1][:12] + "…"])


def _write(figure: "Figure", x: float, y: float, text: str, **style: Any) -> None:  # noqa: ANN401 - passed on to matplotlib
    """Write text at ``x`` and ``y`` inches from the upper left corner. A ``$`` does not start a formula."""
    width, height = figure.get_size_inches()
    figure.text(x / width, 1 - y / height, text, parse_math=False, linespacing=1.05, **style)
