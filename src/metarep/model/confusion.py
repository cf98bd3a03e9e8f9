"""Computes the confusion matrix of a model on its own images, each from a fold that left it out."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from metarep.data.drawing.confusion_picture import draw_counts
from metarep.model.model import Model


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
