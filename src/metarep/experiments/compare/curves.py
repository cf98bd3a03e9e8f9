"""The charts of a comparison: accuracy against shots, and validation accuracy against seconds of training."""

from collections.abc import Mapping, Sequence
from typing import Any

from metarep.experiments.compare.findings import Findings
from metarep.experiments.page.charts import Point, Series, seconds_chart, shots_chart

COLOURS = 12


def marks_of(findings: Findings) -> dict[str, str]:
    """The CSS class of each entrant's colour, by its name; references are grey."""
    marks, own, references = {}, 0, 0
    for each in findings.entrants:
        if each.reference:
            marks[each.name], references = f"r{references}", references + 1
        else:
            marks[each.name], own = f"s{own % COLOURS}", own + 1
    return marks


def shots_figures(findings: Findings) -> list[dict[str, Any]]:
    """A chart for each data set and number of ways that was measured with several numbers of shots."""
    figures = []
    for data, ways in dict.fromkeys((place.data, place.ways) for place in findings.places):
        places = [each for each in findings.places if (each.data, each.ways) == (data, ways) and each.shots.isdecimal()]
        if len(places) < 2:
            continue
        lines = []
        for name, mark in marks_of(findings).items():
            cells = [(int(place.shots), findings.cell(name, place)) for place in places]
            points = sorted(Point(shots, cell.accuracy, cell.ci95) for shots, cell in cells if cell)
            lines += [Series(name, mark, points)] if points else []
        figures.append({"data": data, "ways": ways, "lines": lines, "chart": shots_chart(lines)})
    return figures


def seconds_figures(findings: Findings, trainings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A chart for each data set with trainings that were validated several times, of the first seed of each method.

    A log has the steps of validations and not their times. Steps take equal time, so each is at its share of the whole.

    Args:
        findings: the figures.
        trainings: what each training took.
    """
    marks, figures = marks_of(findings), []
    for data in dict.fromkeys(each["data"] for each in trainings):
        own = [each for each in trainings if each["data"] == data and each["seed"] == 0 and each["curve"]]
        own.sort(key=lambda each: [*marks].index(each["method"]))
        lines = [
            Series(
                each["method"],
                marks[each["method"]],
                [Point(step / each["steps"] * each["seconds"], *figures) for step, *figures in each["curve"]],
            )
            for each in own
        ]
        if any(len(line.points) > 1 for line in lines):
            tasks = own[0]["validated_on"]
            figures.append({"data": data, "tasks": tasks, "lines": lines, "chart": seconds_chart(lines)})
    return figures
