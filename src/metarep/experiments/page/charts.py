"""Charts as SVG inside the page. The page's style gives colours and fonts; hovering over a point shows its value."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from metarep.experiments.page.maps import ClassMap
from metarep.experiments.page.pages import render

WIDTH, HEIGHT = 640, 350
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 14, 58
THUMB = 28.0
TICKS = (*range(10, 90, 10), 90, 95, 97, 98, 99, 99.5, 99.8, 99.9)


class Point(NamedTuple):
    """An accuracy at a number of shots or of seconds, with half the width of its 95 % interval; both in percent."""

    at: float
    accuracy: float
    ci95: float


class Series(NamedTuple):
    """A line of the chart: its name, the CSS class of its colour, and its points."""

    name: str
    mark: str
    points: Sequence[Point]


def shots_chart(series: Sequence[Series]) -> Markup:
    """A chart of accuracy against shots, with one line for each learner. Whiskers are 95 % intervals.

    Args:
        series: the lines; the first is drawn on top.

    Returns:
        SVG markup.

    >>> chart = shots_chart([Series("protonet", "s0", [Point(1, 90.0, 0.5), Point(5, 97.0, 0.3)])])
    >>> "protonet, 5 shots: 97.0 ± 0.3 %" in chart
    True
    """
    ticks = sorted({point.at for line in series for point in line.points})
    axis = Axis("shots", "shots: examples of each class", lambda at: f"{at:g} {'shot' if at == 1 else 'shots'}", ticks)
    return line_chart(series, axis)


def seconds_chart(series: Sequence[Series]) -> Markup:
    """A chart of accuracy against seconds of training, with one line for each method.

    Args:
        series: the lines, with seconds above 0; the first is drawn on top. The chart needs a line with a point.

    Returns:
        SVG markup.

    >>> "protonet, 20 s: 90.0 ± 0.5 %" in seconds_chart([Series("protonet", "s0", [Point(20.0, 90.0, 0.5)])])
    True
    """
    seconds = [point.at for line in series for point in line.points]
    low, high = min(seconds), max(seconds)
    ticks = [base * 10.0**power for power in range(-3, 8) for base in (1, 2, 5)]
    inside = [tick for tick in ticks if low <= tick <= high]
    return line_chart(series, Axis("seconds of training", "seconds of training", lambda at: f"{at:.3g} s", inside))


class Axis(NamedTuple):
    """The horizontal axis of a chart, which is logarithmic.

    Attributes:
        short: its name in the description of the chart.
        name: its name below the chart.
        says: writes a value with its unit.
        ticks: the values that are written below it.
    """

    short: str
    name: str
    says: Callable[[float], str]
    ticks: Sequence[float]


def line_chart(series: Sequence[Series], axis: Axis) -> Markup:
    """A chart of accuracies with one line for each learner. Whiskers are 95 % intervals.

    The horizontal axis is logarithmic, that of accuracies shows their log-odds. So half the number of errors is a step
    of about the same length everywhere, also near 100 %.

    Args:
        series: the lines; the first is drawn on top.
        axis: what the accuracies are shown against.
    """
    places = [point.at for line in series for point in line.points]
    levels = [point.accuracy + side * point.ci95 for line in series for point in line.points for side in (-1, 1)]
    bottom, top = _odds(min(levels)) - 0.15, _odds(max(levels)) + 0.15
    first, last = math.log(min(places)), math.log(max(places))
    length = last - first or 1.0

    def across(value: float) -> float:
        return LEFT + 24 + (math.log(value) - first) / length * (WIDTH - LEFT - RIGHT - 48)

    def up(value: float) -> float:
        return TOP + (top - _odds(value)) / (top - bottom) * (HEIGHT - TOP - BOTTOM)

    return render(
        "chart.svg",
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=WIDTH - RIGHT,
        bottom=HEIGHT - BOTTOM,
        label=f"Accuracy in percent against {axis.short}: " + ", ".join(line.name for line in series),
        axis=axis.name,
        ticks=[(f"{tick:g}", f"{up(float(tick)):.1f}") for tick in TICKS if bottom <= _odds(float(tick)) <= top],
        columns=[(f"{tick:g}", f"{across(tick):.1f}") for tick in axis.ticks],
        lines=[_line(line, axis, across, up) for line in reversed(series)],  # the first line is drawn last, on top
    )


def _odds(percent: float) -> float:
    """The log-odds of an accuracy. It is limited to 99.95 %, because log-odds of 100 % are infinite."""
    share = min(max(percent / 100, 0.0005), 0.9995)
    return math.log(share / (1 - share))


def _line(line: Series, axis: Axis, across: Callable[[float], float], up: Callable[[float], float]) -> dict[str, Any]:
    """The values that the template needs to draw a line: its path and its dots, in pixels."""
    pixels = [(across(point.at), up(point.accuracy)) for point in line.points]
    dots = []
    for point, (x, y) in zip(line.points, pixels, strict=True):
        low, high = up(point.accuracy - point.ci95), up(point.accuracy + point.ci95)
        dots.append(
            {
                "title": f"{line.name}, {axis.says(point.at)}: {point.accuracy:.1f} ± {point.ci95:.1f} %",
                "x": f"{x:.1f}",
                "y": f"{y:.1f}",
                "whisker": f"M{x:.1f},{low:.1f}V{high:.1f}m-4,0h8M{x - 4:.1f},{low:.1f}h8",
            }
        )
    return {"mark": line.mark, "path": " ".join(f"{x:.1f},{y:.1f}" for x, y in pixels), "dots": dots}


def map_chart(drawn: ClassMap, *, drawings: bool) -> Markup:
    """A map with a dot for each image, a colour for each class, and an image of each class at the mean of its dots.

    Args:
        drawn: the map, with positions from 0 to 1.
        drawings: whether the images are dark ink on white, which a dark page inverts.

    Returns:
        SVG markup.
    """
    side, edge = 400.0, 22.0
    scale = side - 2 * edge
    centres = [
        (sum(x for x, _ in each.dots) / len(each.dots), sum(y for _, y in each.dots) / len(each.dots))
        for each in drawn.classes
    ]
    spread = push_apart([(edge + x * scale, side - edge - y * scale) for x, y in centres], THUMB + 3, side)
    kinds = [
        {
            "name": each.name,
            "hue": f"{number * 360 / len(drawn.classes):.0f}",
            "dots": [(f"{edge + a * scale:.1f}", f"{side - edge - b * scale:.1f}") for a, b in each.dots],
            "x": f"{x - THUMB / 2:.1f}",
            "y": f"{y - THUMB / 2:.1f}",
            "picture": each.picture,
        }
        for number, (each, (x, y)) in enumerate(zip(drawn.classes, spread, strict=True))
    ]
    label = f"Map of {len(drawn.classes)} classes in the representation of {drawn.learner}"
    look = "ink" if drawings else "photo"
    return render("map.svg", side=f"{side:g}", thumb=f"{THUMB:g}", label=label, look=look, kinds=kinds)


def push_apart(centres: Sequence[tuple[float, float]], gap: float, side: float) -> list[tuple[float, float]]:
    """Move squares apart until they do not overlap, as little as needed and inside a larger square.

    Args:
        centres: centres of the squares, in pixels.
        gap: side of the squares in pixels.
        side: side of the larger square in pixels.

    Returns:
        The new centres, in pixels.

    >>> push_apart([(50.0, 50.0), (50.0, 60.0)], 20.0, 100.0)
    [(50.0, 45.0), (50.0, 65.0)]
    """
    moved = [list(centre) for centre in centres]
    for _ in range(200):
        clash = False
        for i, one in enumerate(moved):
            for other in moved[:i]:
                apart = [one[axis] - other[axis] for axis in (0, 1)]
                axis = 0 if abs(apart[0]) > abs(apart[1]) else 1
                missing = gap - abs(apart[axis])
                if missing > 1e-6:
                    sign = 1 if apart[axis] >= 0 else -1
                    one[axis] += sign * missing / 2
                    other[axis] -= sign * missing / 2
                    clash = True
        for centre in moved:
            centre[:] = [min(max(value, gap / 2), side - gap / 2) for value in centre]
        if not clash:
            break
    return [(x, y) for x, y in moved]
