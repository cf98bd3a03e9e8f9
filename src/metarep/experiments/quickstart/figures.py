"""Values for the figures of the page: the chart of shots, the solved tasks, the maps. Templates lay them out."""

from typing import Any

from metarep.experiments.page.charts import Point, Series, map_chart, shots_chart
from metarep.experiments.page.examples import Query, SolvedTask
from metarep.experiments.page.words import count, word
from metarep.experiments.quickstart.findings import Findings


def shots_figure(findings: Findings) -> dict[str, Any]:
    """The chart of accuracy against shots, for tasks with the ways of the last column."""
    ways = findings.columns[-1][0]
    lines: list[Series] = []
    references, methods = 0, 0
    for row in findings.methods():
        if row["family"] == "reference":
            mark, references = f"r{references}", references + 1
        else:
            mark, methods = f"s{methods % 6}", methods + 1
        own = sorted(
            (int(other["shots"]), other["accuracy"], other["ci95"])
            for other in findings.content["rows"]
            if (other["method"], other["ways"]) == (row["method"], str(ways))
        )
        lines.append(Series(row["method"], mark, [Point(*point) for point in own]))
    return {"ways": ways, "lines": lines, "chart": shots_chart(lines)}


def tasks_figure(findings: Findings) -> dict[str, Any]:
    """The example tasks, with the answers of the best method."""
    return {
        "number": count(len(findings.examples), "task").capitalize(),
        "kind": "ink" if findings.drawings else "photo",
        "solved": [_solved(task, findings.content["best"]) for task in findings.examples],
    }


def _solved(task: SolvedTask, best: str) -> dict[str, Any]:
    """One example task; its queries are in rows with one query of each way."""
    by_way = [[query for query in task.queries if query.way == way] for way in range(len(task.names))]
    total = len(task.queries)
    return {
        "names": task.names,
        "support": list(zip(task.names, task.support, strict=True)),
        "queries": [_judged(query, task, best) for line in zip(*by_way, strict=True) for query in line],
        "score": ", ".join(f"{name} {task.right(name)} of {total}" for name in task.queries[0].guesses),
    }


def _judged(query: Query, task: SolvedTask, best: str) -> dict[str, str]:
    """One query. ``taken`` is the image of the wrong class that it was given, and empty if the answer is right."""
    name, guess = task.names[query.way], query.guesses[best]
    right = guess == query.way
    return {
        "picture": query.picture,
        "label": f"{name}: right" if right else f"{name}: taken for {task.names[guess]}",
        "taken": "" if right else task.support[guess],
    }


def maps_figure(findings: Findings) -> dict[str, Any]:
    """The maps, each with its chart, and the number of classes on them as a word."""
    return {
        "classes": word(len(findings.maps[0].classes)),
        "drawn": [(drawn, map_chart(drawn, drawings=findings.drawings)) for drawn in findings.maps],
    }
