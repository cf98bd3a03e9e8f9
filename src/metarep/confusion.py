"""A picture of what a model takes for what when each of its images is left out."""

import warnings
from pathlib import Path

from metarep.fonts import family_for
from metarep.model import Model, confusion

MOST_NAMES = 60  # classes; with more, names would overlap


def draw_confusion(model: Model, path: Path) -> bool:
    """Draw the confusion matrix as PNG; False, and no picture, where no image could be left out."""
    counts = confusion(model)
    if not counts.sum():
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names, ways = model.gallery.names, len(counts)
    shares = (counts / counts.sum(1, keepdim=True).clamp_min(1)).numpy()
    side = min(14, 2.5 + 0.28 * ways)
    figure = Figure((side + 1, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(ways):
        for column in range(ways):
            if ways <= 30 and counts[row, column]:
                light = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(int(counts[row, column])), ha="center", va="center", color=light, size=7)
    if ways <= MOST_NAMES:
        short = [name if len(name) <= 24 else name[:23] + "…" for name in names]
        families = [family_for(name) for name in short]  # of its own for each name: no font has every script
        for ticks in (
            axes.set_xticks(range(ways), short, rotation=90, size=7),
            axes.set_yticks(range(ways), short, size=7),
        ):
            for tick, family in zip(ticks, families, strict=True):
                if family:
                    tick.label1.set_fontfamily(family)
    accuracy = model.trust.accuracy if model.trust.source == "leave-one-out" else None
    axes.set_title("each image left out once" + (f": {accuracy:.1f} % right" if accuracy is not None else ""), size=10)
    axes.set_xlabel("taken for", size=9)
    axes.set_ylabel("is", size=9)
    figure.colorbar(image, ax=axes, shrink=0.6, label="share of the class")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # no font here has it: a box is drawn
        figure.savefig(path, dpi=130)
    return True
