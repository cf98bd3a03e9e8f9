"""The page of a comparison, in one file, which needs no other files and no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from metarep.data.split import Split
from metarep.experiments.compare.curves import seconds_figures, shots_figures
from metarep.experiments.compare.entrants import PIXELS, Entrant, unmeasurable
from metarep.experiments.compare.findings import Findings
from metarep.experiments.compare.notes import commands, how_measured
from metarep.experiments.compare.sections import differences, headline, lede, more_figures, ranks, results
from metarep.experiments.page.charts import map_chart
from metarep.experiments.page.examples import SolvedTask, solve_examples
from metarep.experiments.page.maps import draw_maps
from metarep.experiments.page.pages import render
from metarep.experiments.page.words import count, word
from metarep.machine.files import replacing
from metarep.machine.version import __version__
from metarep.weights.checkpoint import Checkpoint

EXAMPLES, EXAMPLE_WAYS, EXAMPLE_QUERIES = 2, 5, 2
MAP_CLASSES = 10


@runtime_checkable
class Splits(Protocol):
    """Gives the test classes of a data set, at the image size of a learner."""

    def of(self, data: str, opened: Checkpoint | None = None) -> Split: ...


def write_report(
    path: Path,
    findings: Findings,
    content: Mapping[str, Any],
    shown: Mapping[str, tuple[Sequence[Entrant], Splits]],
) -> None:
    """Write the page. It replaces an older file only when it is complete.

    Args:
        path: the HTML file.
        findings: the figures.
        content: the content of ``results.json``.
        shown: for each data set its entrants, whose first seeds draw maps and solve tasks, and the test classes.
    """
    pictures = [_pictures(data, *each, findings, content["plan"]["task_seed"]) for data, each in shown.items()]
    page = render(
        "page.html",
        "metarep.experiments.compare",
        version=__version__,
        content=content,
        headline=headline(findings, content),
        lede=lede(findings, content),
        results=results(findings, content),
        more=more_figures(findings),
        differences=differences(findings),
        ranks=ranks(findings),
        shots=shots_figures(findings),
        seconds=seconds_figures(findings, content["trainings"]),
        pictures=pictures,
        examples=count(EXAMPLES, "task"),
        classes=word(MAP_CLASSES),
        measured=how_measured(content),
        commands=commands(content),
    )
    with replacing(path) as partial:
        partial.write_text(page, "utf-8")


def _pictures(data: str, entrants: Sequence[Entrant], splits: Splits, findings: Findings, seed: int) -> dict[str, Any]:
    """Solved tasks and maps of one data set. Images of another size give the same tasks, because rows are the same."""
    by_name = {each.name: each for each in entrants}
    order = [each.name for each in findings.entrants if each.name in by_name]
    solved: list[SolvedTask] = []
    maps, drawings = [], False
    for name in order:
        opened = by_name[name].seeds[0].open()
        split = splits.of(data, opened)
        drawings |= opened.learner.encoder.preprocess.invert
        ways = min(EXAMPLE_WAYS, len(split.labels.names))
        with torch.no_grad():
            maps += draw_maps({name: opened.learner}, split, classes=MAP_CLASSES, seed=seed)
            if unmeasurable(opened.learner, range(ways, ways + 1)):
                continue
            tasks = solve_examples(
                {name: opened.learner}, split, tasks=EXAMPLES, ways=ways, seed=seed, most=EXAMPLE_QUERIES
            )
        solved = [_joined(task, more) for task, more in zip(solved, tasks, strict=True)] if solved else tasks
    look = "ink" if drawings else "photo"
    return {
        "data": data,
        "look": look,
        "tasks": [_task(task, [name for name in order if name in task.queries[0].guesses]) for task in solved],
        "maps": [(drawn, map_chart(drawn, drawings=drawings)) for drawn in maps],
        "pixels": PIXELS,
    }


def _joined(task: SolvedTask, more: SolvedTask) -> SolvedTask:
    """One task with the answers of another learner as well."""
    pairs = zip(task.queries, more.queries, strict=True)
    return task._replace(queries=[one._replace(guesses=one.guesses | other.guesses) for one, other in pairs])


def _task(task: SolvedTask, names: Sequence[str]) -> dict[str, Any]:
    """One solved task: its support, its queries by class, and a line of answers for each learner."""
    queries = sorted(task.queries, key=lambda query: query.way)
    total = len(queries)
    lines = []
    for name in names:
        answers = [
            {
                "right": query.guesses[name] == query.way,
                "picture": task.support[query.guesses[name]],
                "label": f"{name}: {task.names[query.way]} taken for {task.names[query.guesses[name]]}",
            }
            for query in queries
        ]
        lines.append({"name": name, "answers": answers, "right": f"{task.right(name)} of {total}"})
    return {
        "ways": [
            {"name": name, "picture": picture, "span": sum(query.way == way for query in queries)}
            for way, (name, picture) in enumerate(zip(task.names, task.support, strict=True))
        ],
        "queries": [{"picture": query.picture, "name": task.names[query.way]} for query in queries],
        "lines": lines,
    }
