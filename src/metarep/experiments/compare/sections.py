"""The tables of the page of a comparison: results, differences, ranks, and what accuracy does not say."""

from collections.abc import Mapping, Sequence
from typing import Any

from metarep.experiments.compare.entrants import FEATURES, PIXELS, Entrant
from metarep.experiments.compare.findings import MORE, Cell, Findings, Place
from metarep.experiments.page.words import count, listed, word
from metarep.weights.frozen import FROZEN

NO_BREAK = "\u00a0"


def headline(findings: Findings, content: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of the headline: the best entrant by mean rank, its first accuracy, and that of raw pixels."""
    best = findings.entrants[0]
    place = next((each for each in findings.places if findings.cell(best.name, each)), findings.places[0])
    cell, pixels = findings.cell(best.name, place), findings.cell(PIXELS, place)
    level = sorted(findings.leaders(place) - {best.name}) if cell and best.name in findings.leaders(place) else []
    own = [each for each in findings.entrants if not each.reference]
    return {
        "best": best.name,
        "alone": len(own) == 1,
        "among": count(len(own), "method"),
        "data": listed(content["plan"]["data"]),
        "shape": place.shape if len(content["plan"]["data"]) == 1 else f"{place.shape} (on {place.data})",
        "accuracy": _percent(cell) if cell else "",
        "pixels": _percent(pixels) if pixels else "",
        "level": listed(level, 4) if level else "",
    }


def _percent(cell: Cell) -> str:
    return f"{cell.accuracy:.1f}{NO_BREAK}±{NO_BREAK}{cell.ci95:.1f}{NO_BREAK}%"


def lede(findings: Findings, content: Mapping[str, Any]) -> str:
    """The paragraph below the headline."""
    plan = content["plan"]
    own = [each for each in findings.entrants if not each.reference]
    trained = {each["method"] for each in content["trainings"]}
    parts = []
    if trained:
        how = "by its recipe" if plan["recipes"] else "as long as it does by default"
        if plan["budget"] is not None:
            how = f"within a budget of {plan['budget']:g} seconds on this machine"
        seeds = f", with {word(plan['seeds'])} seeds" if plan["seeds"] > 1 else ""
        what = "method" if len(trained) == 1 else f"of {count(len(trained), 'method')}"
        parts.append(f"Each {what} was trained {how}{seeds}.")
    if given := [each for each in own if each.name not in trained]:
        kinds = {each.family for each in given}
        what = "features file" if kinds == {FEATURES} else "frozen encoder" if kinds == {FROZEN} else "trained run"
        parts.append(f"{count(len(given), what).capitalize()} {'was' if len(given) == 1 else 'were'} given.")
    tasks = f"All were measured on the same {plan['tasks']:,} tasks of each shape"
    if all(each.family == FEATURES for each in own):
        return f"{' '.join(parts)} {tasks}. What their encoders were trained on is not known here."
    parts.append(f"{tasks}, drawn from classes that no training of this library has touched.")
    if foreign := [each.name for each in own if each.family == FROZEN]:
        parts.append(
            f"What {listed(foreign)} {'was' if len(foreign) == 1 else 'were'} trained on elsewhere may hold them."
        )
    parts.append("Nothing was chosen by these measurements.")
    return " ".join(parts)


def results(findings: Findings, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A table for each data set, with one line for each entrant and one column for each shape of tasks."""
    tables = []
    for data in content["plan"]["data"]:
        places = [place for place in findings.places if place.data == data]
        entrants = [each for each in findings.entrants if any(findings.cell(each.name, place) for place in places)]
        leaders = {place: findings.leaders(place) for place in places}
        lines = [_line(findings, each, places, leaders) for each in entrants]
        for line, after in zip(lines, [*lines[1:], None], strict=True):
            if after and after["reference"] and not line["reference"]:
                line["kind"] = "parting"
        tables.append(
            {
                "data": data,
                "shapes": [(place.ways, place.shots) for place in places],
                "lines": lines,
                "several": any(line["seeds"] > 1 for line in lines),
                "missing": any(cell is None for line in lines for cell in line["cells"]),
            }
        )
    return tables


def _line(
    findings: Findings, entrant: Entrant, places: Sequence[Place], leaders: Mapping[Place, set[str]]
) -> dict[str, Any]:
    cells = [findings.cell(entrant.name, place) for place in places]
    first = next(cell for cell in cells if cell)
    row, memory, seconds = first.runs[0].row, first.figure("memory_mib"), first.figure("train_seconds")
    return {
        "name": entrant.name,
        "kind": "reference" if entrant.reference else "",
        "reference": entrant.reference,
        "what": f"{'nothing learned' if entrant.reference else entrant.family} · {row['learner']}",
        "seeds": len(first.runs),
        "cells": [
            None
            if cell is None
            else {
                "accuracy": f"{cell.accuracy:.1f}",
                "ci95": f"{cell.ci95:.1f}",
                "sd": "" if cell.seed_sd is None else f"{cell.seed_sd:.1f}",
                "best": entrant.name in leaders[place],
            }
            for cell, place in zip(cells, places, strict=True)
        ],
        "rank": f"{findings.ranks[entrant.name]:.1f}",
        "seconds": "–" if seconds is None else f"{seconds:,.0f} s",
        "memory": "–" if memory is None else f"{memory:,.0f}",
        "parameters": f"{row['parameters']:,}" if row["parameters"] else "–",
    }


def differences(findings: Findings) -> list[dict[str, Any]]:
    """For each set of tasks a square of all pairs: the row's accuracy minus the column's."""
    squares = []
    for place in findings.places:
        names = [each.name for each in findings.entrants if findings.cell(each.name, place)]
        own = [abs(each.difference.mean) for each in findings.pairs if each.place == place]
        most = max(own, default=0.0) or 1.0
        lines = [(one, [_pair(findings, one, other, place, most) for other in names]) for one in names]
        equal = sum(not each.significant for each in findings.pairs if each.place == place)
        squares.append(
            {"name": f"{place.data}, {place.shape}", "names": names, "lines": lines, "pairs": len(own), "equal": equal}
        )
    return squares


def _pair(findings: Findings, one: str, other: str, place: Place, most: float) -> dict[str, Any] | None:
    pair = findings.pair(one, other, place) if one != other else None
    if pair is None:
        return None
    mean, p = pair.difference.mean, pair.corrected
    says = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return {
        "text": f"{mean:+.1f}".replace("-", "−"),
        "title": f"{one} minus {other}: {mean:+.2f} ± {pair.difference.ci95:.2f} points, {says} after Holm",
        "significant": pair.significant,
        "side": "better" if mean > 0 else "worse",
        "strength": f"{8 + 34 * min(1.0, abs(mean) / most):.0f}" if pair.significant else "0",
    }


def ranks(findings: Findings) -> dict[str, Any]:
    """The mean rank of each entrant over data sets, and what its differences mean; with bars for a chart."""
    ranking, names = findings.by_data, [each.name for each in findings.entrants]
    if ranking is None:
        return {"bars": [], "critical": "", "sets": 0, "can_tell": False, "p": "", "few": True, "most": 0}
    ordered = sorted(zip(ranking.mean, names, strict=True))
    most = len(names)
    return {
        "bars": [(name, f"{rank:.2f}", f"{100 * (rank - 1) / max(1, most - 1):.1f}") for rank, name in ordered],
        "critical": f"{ranking.critical:.2f}",
        "sets": ranking.data_sets,
        "can_tell": ranking.can_tell,
        "few": ranking.data_sets < 10,
        "p": "below 0.001" if ranking.p < 0.001 else f"{ranking.p:.3f}",
        "most": most - 1,
    }


def more_figures(findings: Findings) -> list[dict[str, Any]]:
    """Tables of the other figures that reports have, for each set of tasks; empty if they have none."""
    tables = []
    for place in findings.places:
        names = [each.name for each in findings.entrants if findings.cell(each.name, place)]
        have = [name for name in MORE if any(_figure(findings, each, place, name) is not None for each in names)]
        if have:
            lines = [(each, [_shown(_figure(findings, each, place, name), name) for name in have]) for each in names]
            heads = [MORE[name] for name in have]
            tables.append({"name": f"{place.data}, {place.shape}", "heads": heads, "lines": lines})
    return tables


def _figure(findings: Findings, name: str, place: Place, figure: str) -> float | None:
    cell = findings.cell(name, place)
    return cell.figure(figure) if cell else None


def _shown(value: float | None, name: str) -> str:
    if value is None:
        return "–"
    return f"{1000 * value:.2f}" if name == "task_seconds" else f"{value:.2f}" if name == "set_size" else f"{value:.1f}"
