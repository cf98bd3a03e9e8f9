"""Captions of tables of results: how the rows were measured, and which recipe each of them comes from."""

import re
from collections.abc import Iterable

from metarep.experiments.measurement.results import Row

RECALLED = "a figure that is called recalled was written from memory, and not checked against the paper"


def caption(trained: list[Row]) -> str:
    """Write the caption of a table: what its cells have in common, and a folded table if there are several recipes.

    Args:
        trained: the rows of one table, measured on one split, without reference rows.
    """

    def each(column: str) -> str:
        return " or ".join(values(trained, column))

    several = len(distinct(trained, ("method", "recipe"))) > 1
    sizes = " or ".join(sorted(values(trained, "size"), key=lambda size: [int(side) for side in size.split("x")]))
    sizes = f" on images of {sizes} px" if sizes else ""
    queries = "1 query" if each("queries") == "1" else f"{each('queries')} queries"
    tasks = " or ".join(f"{number:,}" for number in sorted(map(int, values(trained, "tasks")), reverse=True))
    facts = [
        "Accuracy in percent ± half its 95 % interval over tasks",
        f"{tasks} tasks of {queries} a class, {_protocol(trained)}",
        f"split {trained[0]['data']}/{trained[0]['split']}; encoder {each('encoder')}{sizes}, "
        f"trained on {each('trained_on')}",
    ]
    published = any(row["published"] for row in trained)
    if several:
        facts += ["in brackets what was published"] if published else []
        facts += [RECALLED] if any(row["source"].startswith("recalled") for row in trained) and published else []
        return f"{_sentences(facts)}\n\n{_origins(trained)}"
    row = trained[0]
    facts += [f"training: {_minutes(row)}"] if _minutes(row) else []
    facts += [_seeds(trained)] if _seeds(trained) else []
    hardware = " or ".join(dict.fromkeys(map(hardware_words, values(trained, "hardware"))))
    facts += [f"hardware: {hardware}; commit {each('commit') or 'unknown'}"]
    if published and row["source"].startswith("recalled"):
        facts += [f"in brackets {row['source'].removeprefix('recalled: ')}, not checked against the paper"]
    elif published:
        facts += [f"in brackets what was published ({row['source']})"]
    return _sentences(facts)


def _protocol(trained: list[Row]) -> str:
    """The protocols, each with the batch statistics that its rows were measured under; several have a column."""
    protocols, parts = sorted(values(trained, "protocol")), []
    if len(protocols) > 2:
        return "with the protocol and the batch statistics that the columns say"
    for protocol in protocols:
        statistics = values([row for row in trained if row["protocol"] == protocol], "normalisation")
        parts.append(protocol if statistics == [protocol] else f"{protocol} under {' or '.join(statistics)} statistics")
    return ", or ".join(parts)


def _origins(trained: list[Row]) -> str:
    """A table with a row for each recipe, folded where Markdown becomes HTML."""
    recipes: dict[tuple[str, ...], list[Row]] = {}
    for row in trained:
        measured = hardware_words(row["hardware"]), row["commit"] or "unknown"
        known = name(row, trained), f"{int(row['tasks']):,}", _minutes(row), row["seeds"], *measured
        recipes.setdefault(known, []).append(row)
    head = ["row", "tasks", "training", "hardware", "commit", "figure in brackets"]
    lines = []
    for (who, tasks, minutes, _, *measured), rows in recipes.items():
        trainings = ", ".join(part for part in (minutes, _seeds(rows)) if part)
        lines.append(
            [who, tasks, trainings, *measured, "; ".join(values((r for r in rows if r["published"]), "source"))]
        )
    table = markdown([head, ["---", "---:", "---:", "---", "---", "---"], *lines])
    return f"<details>\n<summary>Where each row comes from</summary>\n\n{table}\n\n</details>"


def hardware_words(hardware: str) -> str:
    """The hardware of a result, with a singular for one thread: results of earlier versions say "1 threads".

    >>> hardware_words("1 threads of AMD EPYC (AVX512)")
    '1 thread of AMD EPYC (AVX512)'
    """
    return re.sub(r"^1 threads\b", "1 thread", hardware)


def _minutes(row: Row) -> str:
    """How long the training took; empty if it is not known."""
    if not row["train_seconds"]:
        return ""
    seconds = int(row["train_seconds"])
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds} s"


def _seeds(rows: list[Row]) -> str:
    """The number of trainings that rows are the mean of, and their standard deviation; empty for one training."""
    if rows[0]["seeds"] in ("", "1"):
        return ""
    spread = sorted((row["seed_sd"] for row in rows), key=float)
    least, most = spread[0], spread[-1]
    deviation = least if least == most else f"{least} to {most}"
    return f"mean of {rows[0]['seeds']} trainings with a deviation of {deviation}"


def _sentences(facts: list[str]) -> str:
    return ". ".join(fact[0].upper() + fact[1:] for fact in facts) + "."


def name(row: Row, rows: list[Row]) -> str:
    """The name of a row among others: its method, or its recipe if there are several recipes of the method."""
    recipes = {other["recipe"] for other in rows if other["method"] == row["method"]}
    return row["recipe"] if row["recipe"] and len(recipes) > 1 else row["method"]


def markdown(lines: list[list[str]]) -> str:
    """Write cells as a Markdown table; the second line is the rule.

    >>> print(markdown([["a", "b"], ["---", "---"], ["1", "2"]]))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def values(rows: Iterable[Row], column: str) -> list[str]:
    """The distinct values of a column in order of appearance, without empty ones."""
    return list(dict.fromkeys(row[column] for row in rows if row[column]))


def distinct(rows: Iterable[Row], columns: Iterable[str]) -> set[tuple[str, ...]]:
    """The distinct combinations of values of some columns."""
    columns = tuple(columns)
    return {tuple(row[column] for column in columns) for row in rows}
