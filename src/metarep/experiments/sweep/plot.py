"""The plot of a sweep: validation accuracy by trial, and by each setting that was tried."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarep.experiments.sweep.report import Row, best_of
from metarep.experiments.sweep.space import Range, Space
from metarep.machine.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DONE, PRUNED, BEST = "#1f5fa8", "#9a9a9a", "#c8452e"
ACROSS = 3  # panels beside each other


def write_plot(path: Path, rows: Sequence[Row], space: Space, title: str) -> None:
    """Draw the trials of a sweep as points, and write them to a PNG file.

    Full points are trials that are done, rings are pruned ones at the accuracy where they ended. The first panel shows
    the trials in order with the best so far, and each of the others one setting.

    Args:
        path: the file.
        rows: from :func:`metarep.experiments.sweep.report.row_of`.
        space: the values of each setting.
        title: what was trained, on which data.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [row for row in rows if row["state"] in ("done", "pruned") and row["accuracy"] is not None]
    panels = 1 + len(space)
    across, down = min(panels, ACROSS), -(-panels // ACROSS)
    figure = Figure(figsize=(4.2 * across, 0.5 + 3.4 * down), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = [*figure.subplots(down, across, squeeze=False).flat]
    for unused in axes[panels:]:
        unused.set_axis_off()
    best = best_of(shown)
    _points(axes[0], shown, [row["trial"] for row in shown], best)
    _best_so_far(axes[0], shown)
    axes[0].set_xlabel("trial")
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    for axis, (name, values) in zip(axes[1:], space.items(), strict=False):
        if isinstance(values, Range):
            _points(axis, shown, [row[name] for row in shown], best)
            if values.log:
                _log_scale(axis, values)
        else:
            _points(axis, shown, [values.values.index(row[name]) for row in shown], best)
            axis.set_xticks(range(len(values.values)), [str(each) for each in values.values])
            axis.margins(x=0.3)
        axis.set_xlabel(name)
    for row in range(down):
        axes[row * across].set_ylabel("validation accuracy (%)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title, fontsize=11)
    with replacing(path) as partial:
        figure.savefig(partial, format="png")


def _points(axis: "Axes", rows: Sequence[Row], where: Sequence[Any], best: Row | None) -> None:
    """Draw a point for each trial at ``where``, and a larger one around the best."""
    for state, face, edge in (("pruned", "none", PRUNED), ("done", DONE, DONE)):
        points = [(x, row["accuracy"]) for x, row in zip(where, rows, strict=True) if row["state"] == state]
        if points:
            axis.scatter(*zip(*points, strict=True), s=26, facecolors=face, edgecolors=edge, label=state, zorder=2)
    if best is not None:
        x = where[[row["trial"] for row in rows].index(best["trial"])]
        axis.scatter([x], [best["accuracy"]], s=90, facecolors="none", edgecolors=BEST, label="best", zorder=3)
    axis.grid(alpha=0.25)


def _log_scale(axis: "Axes", values: Range) -> None:
    """Make the horizontal axis logarithmic, with few numbers at it."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0,) if values.high / values.low > 300 else (1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())


def _best_so_far(axis: "Axes", rows: Sequence[Row]) -> None:
    """Draw the highest accuracy of the trials that are done, from each trial to the next."""
    done = [row for row in rows if row["state"] == "done"]
    highest = [max(row["accuracy"] for row in done[: end + 1]) for end in range(len(done))]
    axis.step([row["trial"] for row in done], highest, where="post", color=DONE, linewidth=1, alpha=0.6, zorder=1)
