"""Tables of a comparison: CSV files with every figure, and Markdown to paste."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metarep.experiments.compare.findings import Cell, Findings
from metarep.experiments.measurement.results import COLUMNS
from metarep.machine.files import replacing

MORE_COLUMNS = ("family", "seed", "parameters", "memory_mib", "seconds", "rank", "run")
SEEDS = ", of the mean over seeds; in brackets the standard deviation over seeds"
COSTS = {"training": ("train_seconds", " s"), "memory": ("memory_mib", " MiB"), "parameters": ("parameters", "")}
DIFFERENCES = ("data", "ways", "shots", "one", "other", "difference", "ci95", "p", "p_holm", "significant")


def write_tables(out: Path, findings: Findings, content: dict[str, Any]) -> None:
    """Write ``results.csv``, ``runs.csv``, ``differences.csv`` and ``results.md``.

    Args:
        out: the folder.
        findings: the figures.
        content: the content of ``results.json``.
    """
    known = [*COLUMNS, *MORE_COLUMNS]
    for name, rows in (("results", content["rows"]), ("runs", content["runs"])):
        more = [column for row in rows for column in row if column not in known]
        write_csv(out / f"{name}.csv", rows, [*known, *dict.fromkeys(more)])
    write_csv(out / "differences.csv", content["differences"], DIFFERENCES)
    with replacing(out / "results.md") as partial:
        partial.write_text(markdown(findings, content), "utf-8")


def write_csv(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Write rows as CSV; it replaces an older file only when it is complete.

    Args:
        path: the file.
        rows: values by column; one that is missing stays empty.
        columns: the columns, in order.
    """
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _text(value) for name, value in row.items()} for row in rows)


def markdown(findings: Findings, content: dict[str, Any]) -> str:
    """The accuracies as a Markdown table for each data set, the best and all that do not differ from it in bold.

    Args:
        findings: the figures.
        content: the content of ``results.json``.
    """
    plan, lines = content["plan"], []
    for data in plan["data"]:
        places = [place for place in findings.places if place.data == data]
        lines += [f"## {data}", ""]
        lines += ["| method | " + " | ".join((*(place.shape for place in places), "rank", *COSTS)) + " |"]
        lines += ["| --- |" + " ---: |" * (len(places) + 1 + len(COSTS))]
        for entrant in findings.entrants:
            cells = [findings.cell(entrant.name, place) for place in places]
            if any(cells):
                texts = [
                    _cell(cell, best=entrant.name in findings.leaders(place))
                    for cell, place in zip(cells, places, strict=True)
                ]
                texts.append(f"{findings.ranks[entrant.name]:.2f}")
                first = next(cell for cell in cells if cell)
                costs = [(first.figure(name), unit) for name, unit in COSTS.values()]
                texts += [f"{value:,.0f}{unit}" if value else "" for value, unit in costs]
                lines.append(f"| {entrant.name} | " + " | ".join(texts) + " |")
        lines += [
            "",
            f"Accuracy in percent ± half its 95 % interval over {plan['tasks']:,} tasks of {content['settings'][data]} "
            f"queries a class{SEEDS if any(row['seeds'] > 1 for row in content['rows']) else ''}. Bold: the best of "
            "a column, and all that do not differ from it at 0.05 (paired over tasks and seeds, Holm over all pairs). "
            "Rank: the mean over all columns of this comparison.",
            "",
        ]
    if findings.by_data is not None:
        ranking = findings.by_data
        means = ", ".join(f"{each.name} {rank:.2f}" for each, rank in zip(findings.entrants, ranking.mean, strict=True))
        lines += [
            f"Mean rank over {ranking.data_sets} data sets: {means}. Friedman's test: p = {ranking.p:.2g}; two ranks "
            f"differ at 0.05 if they are {ranking.critical:.2f} or more apart (Nemenyi).",
            "",
        ]
    return "\n".join(lines)


def _cell(cell: Cell | None, *, best: bool) -> str:
    if cell is None:
        return ""
    text = f"{cell.accuracy:.2f} ± {cell.ci95:.2f}" + ("" if cell.seed_sd is None else f" ({cell.seed_sd:.2f})")
    return f"**{text}**" if best else text


def _text(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value
