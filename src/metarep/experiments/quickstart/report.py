"""The report: one page that needs nothing beside itself. Its templates escape whatever is put into them."""

from pathlib import Path
from typing import Any

from metarep.experiments.quickstart.figures import maps_figure, shots_figure, tasks_figure
from metarep.experiments.quickstart.findings import Findings, Row
from metarep.experiments.quickstart.notes import how_measured, what_next
from metarep.experiments.quickstart.pages import render
from metarep.experiments.quickstart.words import count, duration, listed, percent, word
from metarep.machine.files import replacing
from metarep.machine.version import __version__


def write_report(path: Path, found: Findings) -> None:
    """Write the page, whole or not at all."""
    page = render(
        "page.html",
        version=__version__,
        content=found.content,
        headline=_headline(found),
        lede=_lede(found),
        table=_results(found),
        shots=shots_figure(found),
        tasks=tasks_figure(found),
        maps=maps_figure(found),
        measured=how_measured(found.content),
        tries=what_next(found.content),
    )
    with replacing(path) as partial:
        partial.write_text(page, "utf-8")


def _headline(found: Findings) -> dict[str, str]:
    """Parts of the sentence on what was learned, on what, and the best result against raw pixels."""
    content = found.content
    ways, shots = found.columns[0]
    training = next(each for each in content["trainings"] if each["method"] == content["best"])
    data = content["data"]
    return {
        "time": duration(training["seconds"]).capitalize(),
        "learned": f"{data['train']['classes']:,} classes{_named(data['train'])}",
        "new": f"{word(ways)} classes it has never seen{_named(data['test'])}",
        "examples": "one example" if shots == 1 else f"{word(shots)} examples",
        "best": percent(found.row(content["best"], ways, shots)),
        "pixels": percent(found.row("raw pixels", ways, shots)),
    }


def _named(facts: Row) -> str:
    return f" ({listed(facts['kinds'], 3)})" if facts["kinds"] else ""


def _lede(found: Findings) -> str:
    (ways, shots), data = found.columns[0], found.content["data"]
    shown = "one image" if shots == 1 else f"{word(shots)} images"
    methods = count(len(found.content["trainings"]), "method")
    return (
        f"A task shows {shown} of each of {word(ways)} classes and asks which of them new images belong to. The "
        f"encoders learned from other classes only. Below, {methods} and two references face the same tasks, drawn "
        f"from {data['test']['classes']:,} classes that no training has touched."
    )


def _results(found: Findings) -> dict[str, Any]:
    """The table: a line a method, a column a shape of tasks."""
    rows = found.methods()
    columns = [{row["method"]: found.row(row["method"], *shape) for row in rows} for shape in found.columns]
    floors = [max(row["accuracy"] - row["ci95"] for row in column.values()) for column in columns]
    lines = []
    for place, row in enumerate(rows):
        own = row["family"] != "reference"
        last_own = own and place + 1 < len(rows) and rows[place + 1]["family"] == "reference"
        lines.append(
            {
                "name": row["method"],
                "kind": ("" if own else "reference") + (" parting" if last_own else ""),
                "what": f"{row['family'] if own else 'nothing learned'} · {row['learner']}",
                "cells": [_cell(column[row["method"]], floor) for column, floor in zip(columns, floors, strict=True)],
                "seconds": f"{row['train_seconds']:.0f} s" if own else "–",
            }
        )
    chances = [f"{100 / ways:.0f} % of the time in {ways} ways" for ways in sorted({w for w, _ in found.columns})]
    return {"shapes": found.columns, "lines": lines, "chances": listed(chances)}


def _cell(row: Row, floor: float) -> dict[str, Any]:
    best = row["accuracy"] + row["ci95"] >= floor
    return {"accuracy": row["accuracy"], "ci95": row["ci95"], "best": best}
