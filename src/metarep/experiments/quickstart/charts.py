"""Charts as SVG that stands inside the page: colours and type come from the page's style, values on hovering."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from metarep.experiments.quickstart.maps import ClassMap
from metarep.experiments.quickstart.pages import render

WIDTH, HEIGHT = 640, 350
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 14, 58
THUMB = 28.0
TICKS = (*range(10, 90, 10), 90, 95, 97, 98, 99, 99.5, 99.8, 99.9)


class Point(NamedTuple):
    """An accuracy with half of its interval, in percent, at a number of shots."""

    shots: int
    accuracy: float
    ci95: float


class Series(NamedTuple):
    """A line of the chart: its name and the class of its colour in the page's style."""

    name: str
    mark: str
    points: Sequence[Point]


def shots_chart(series: Sequence[Series]) -> Markup:
    """Accuracy against shots, a line a learner; whiskers are 95 % intervals.

    Shots stand on a logarithmic axis and accuracies on that of their log-odds: near 100 %, halving the errors is a step
    as long as anywhere else.

    >>> chart = shots_chart([Series("protonet", "s0", [Point(1, 90.0, 0.5), Point(5, 97.0, 0.3)])])
    >>> "protonet, 5 shots: 97.0 ± 0.3 %" in chart
    True
    """
    shots = sorted({point.shots for line in series for point in line.points})
    levels = [point.accuracy + side * point.ci95 for line in series for point in line.points for side in (-1, 1)]
    bottom, top = _odds(min(levels)) - 0.15, _odds(max(levels)) + 0.15
    first, last = math.log(shots[0]), math.log(max(shots[-1], shots[0] + 1))

    def across(value: int) -> float:
        return LEFT + 24 + (math.log(value) - first) / (last - first) * (WIDTH - LEFT - RIGHT - 48)

    def up(value: float) -> float:
        return TOP + (top - _odds(value)) / (top - bottom) * (HEIGHT - TOP - BOTTOM)

    return render(
        "chart.svg",
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=WIDTH - RIGHT,
        bottom=HEIGHT - BOTTOM,
        label="Accuracy in percent against shots: " + ", ".join(line.name for line in series),
        ticks=[(f"{tick:g}", f"{up(float(tick)):.1f}") for tick in TICKS if bottom <= _odds(float(tick)) <= top],
        columns=[(tick, f"{across(tick):.1f}") for tick in shots],
        lines=[_line(line, across, up) for line in reversed(series)],  # the first is drawn last, on top
    )


def _odds(percent: float) -> float:
    """Log-odds of an accuracy; 100 % counts as 99.95 %, which a few thousand queries cannot tell apart."""
    share = min(max(percent / 100, 0.0005), 0.9995)
    return math.log(share / (1 - share))


def _line(line: Series, across: Callable[[int], float], up: Callable[[float], float]) -> dict[str, Any]:
    places = [(across(point.shots), up(point.accuracy)) for point in line.points]
    dots = []
    for point, (x, y) in zip(line.points, places, strict=True):
        shots = f"{point.shots} {'shot' if point.shots == 1 else 'shots'}"
        low, high = up(point.accuracy - point.ci95), up(point.accuracy + point.ci95)
        dots.append(
            {
                "title": f"{line.name}, {shots}: {point.accuracy:.1f} ± {point.ci95:.1f} %",
                "x": f"{x:.1f}",
                "y": f"{y:.1f}",
                "whisker": f"M{x:.1f},{low:.1f}V{high:.1f}m-4,0h8M{x - 4:.1f},{low:.1f}h8",
            }
        )
    return {"mark": line.mark, "path": " ".join(f"{x:.1f},{y:.1f}" for x, y in places), "dots": dots}


def map_chart(drawn: ClassMap, *, drawings: bool) -> Markup:
    """A dot an image, a colour a class, and a picture of the class at the middle of its dots.

    Args:
        drawn: places in 0 to 1.
        drawings: pictures are ink on white, which a dark page turns over.
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


def push_apart(places: Sequence[tuple[float, float]], gap: float, side: float) -> list[tuple[float, float]]:
    """Squares of side ``gap`` moved as little as it takes for them not to overlap, inside a square of ``side``.

    >>> push_apart([(50.0, 50.0), (50.0, 60.0)], 20.0, 100.0)
    [(50.0, 45.0), (50.0, 65.0)]
    """
    moved = [list(place) for place in places]
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
        for place in moved:
            place[:] = [min(max(value, gap / 2), side - gap / 2) for value in place]
        if not clash:
            break
    return [(x, y) for x, y in moved]
