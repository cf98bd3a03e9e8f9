"""The report: a page in one file, which needs no other files and no network."""

from pathlib import Path
from typing import Any

from metarep.experiments.page.pages import render
from metarep.experiments.page.words import count, duration, listed, percent, word
from metarep.experiments.quickstart.figures import maps_figure, shots_figure, tasks_figure
from metarep.experiments.quickstart.findings import Findings, Row
from metarep.experiments.quickstart.notes import how_measured, what_next
from metarep.machine.files import replacing
from metarep.machine.version import __version__


def write_report(path: Path, findings: Findings) -> None:
    """Write the page. It replaces an older file only when it is complete.

    Args:
        path: the HTML file.
        findings: the values that the page shows.
    """
    page = render(
        "page.html",
        "metarep.experiments.quickstart",
        version=__version__,
        content=findings.content,
        headline=_headline(findings),
        lede=_lede(findings),
        table=_results(findings),
        shots=shots_figure(findings),
        tasks=tasks_figure(findings),
        maps=maps_figure(findings),
        measured=how_measured(findings.content),
        tries=what_next(findings.content),
    )
    with replacing(path) as partial:
        partial.write_text(page, "utf-8")


def _headline(findings: Findings) -> dict[str, str]:
    """The parts of the headline: the training, its classes, and the best result beside that of raw pixels."""
    content = findings.content
    ways, shots = findings.columns[0]
    training = next(each for each in content["trainings"] if each["method"] == content["best"])
    data = content["data"]
    return {
        "time": duration(training["seconds"]).capitalize(),
        "learned": f"{data['train']['classes']:,} classes{_named(data['train'])}",
        "new": f"{word(ways)} classes it has never seen{_named(data['test'])}",
        "examples": "one example" if shots == 1 else f"{word(shots)} examples",
        "best": percent(findings.row(content["best"], ways, shots)),
        "pixels": percent(findings.row("raw pixels", ways, shots)),
    }


def _named(facts: Row) -> str:
    """The kinds of classes of a split in brackets; empty if they have no kinds."""
    return f" ({listed(facts['kinds'], 3)})" if facts["kinds"] else ""


def _lede(findings: Findings) -> str:
    """The paragraph below the headline."""
    (ways, shots), data = findings.columns[0], findings.content["data"]
    shown = "one image" if shots == 1 else f"{word(shots)} images"
    methods = count(len(findings.content["trainings"]), "method")
    return (
        f"A task shows {shown} of each of {word(ways)} classes and asks which of them new images belong to. The "
        f"encoders learned from other classes only. Below, {methods} and two references face the same tasks, drawn "
        f"from {data['test']['classes']:,} classes that no training has touched."
    )


def _results(findings: Findings) -> dict[str, Any]:
    """The table of results, with one line for each method and one column for each shape of tasks."""
    rows = findings.methods()
    columns = [{row["method"]: findings.row(row["method"], *shape) for row in rows} for shape in findings.columns]
    floors = [max(row["accuracy"] - row["ci95"] for row in column.values()) for column in columns]
    lines = []
    for number, row in enumerate(rows):
        own = row["family"] != "reference"
        last_own = own and number + 1 < len(rows) and rows[number + 1]["family"] == "reference"
        lines.append(
            {
                "name": row["method"],
                "kind": ("" if own else "reference") + (" parting" if last_own else ""),
                "what": f"{row['family'] if own else 'nothing learned'} · {row['learner']}",
                "cells": [_cell(column[row["method"]], floor) for column, floor in zip(columns, floors, strict=True)],
                "seconds": f"{row['train_seconds']:.0f} s" if own else "–",
            }
        )
    chances = [f"{100 / ways:.0f} % of the time in {ways} ways" for ways in sorted({w for w, _ in findings.columns})]
    return {"shapes": findings.columns, "lines": lines, "chances": listed(chances)}


def _cell(row: Row, floor: float) -> dict[str, Any]:
    """One cell of the table. It counts as best if its interval overlaps that of the best accuracy."""
    best = row["accuracy"] + row["ci95"] >= floor
    return {"accuracy": row["accuracy"], "ci95": row["ci95"], "best": best}
