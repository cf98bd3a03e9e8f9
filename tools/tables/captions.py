"""What stands below a table of results: how its rows were measured, and where each of them comes from."""

from collections.abc import Iterable

from metarep.experiments.results import Row


def caption(trained: list[Row]) -> str:
    """What the cells have in common; and of several recipes a table of their own, folded away.

    Args:
        trained: the rows of one table, measured on one split, without reference rows.
    """

    def each(column: str) -> str:
        return " or ".join(values(trained, column))

    several = len(distinct(trained, ("method", "recipe"))) > 1
    tasks = " or ".join(f"{number:,}" for number in sorted(map(int, values(trained, "tasks")), reverse=True))
    facts = [
        "Accuracy in percent ± half its 95 % interval over tasks",
        f"{tasks} tasks of {each('queries')} queries a class, {_protocol(trained)}",
        f"split {trained[0]['data']}/{trained[0]['split']}; encoder {each('encoder')}, trained on {each('trained_on')}",
    ]
    published = any(row["published"] for row in trained)
    if several:
        facts += ["in brackets what was published"] if published else []
        return f"{_sentences(facts)}\n\n{_origins(trained)}"
    row = trained[0]
    facts += [f"training: {_minutes(row)}"] if _minutes(row) else []
    facts += [_seeds(trained)] if _seeds(trained) else []
    facts += [f"hardware: {each('hardware')}; commit {each('commit') or 'unknown'}"]
    facts += [f"in brackets what was published ({row['source']})"] if published else []
    return _sentences(facts)


def _protocol(trained: list[Row]) -> str:
    """Protocol and whose statistics, each protocol with its own."""
    parts = []
    for protocol in sorted(values(trained, "protocol")):
        statistics = values([row for row in trained if row["protocol"] == protocol], "normalisation")
        parts.append(protocol if statistics == [protocol] else f"{protocol} under {' or '.join(statistics)} statistics")
    return ", or ".join(parts)


def _origins(trained: list[Row]) -> str:
    """A table with a row for each recipe, that opens where Markdown becomes HTML."""
    recipes: dict[tuple[str, ...], list[Row]] = {}
    for row in trained:
        measured = row["hardware"], row["commit"] or "unknown"
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


def _minutes(row: Row) -> str:
    """How long its training took; empty where nobody knows."""
    if not row["train_seconds"]:
        return ""
    seconds = int(row["train_seconds"])
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds} s"


def _seeds(rows: list[Row]) -> str:
    """Of how many trainings they are the mean, and how far these deviate; empty for one."""
    if rows[0]["seeds"] in ("", "1"):
        return ""
    spread = sorted((row["seed_sd"] for row in rows), key=float)
    least, most = spread[0], spread[-1]
    deviation = least if least == most else f"{least} to {most}"
    return f"mean of {rows[0]['seeds']} trainings with a deviation of {deviation}"


def _sentences(facts: list[str]) -> str:
    return ". ".join(fact[0].upper() + fact[1:] for fact in facts) + "."


def name(row: Row, rows: list[Row]) -> str:
    """What a row is called among others: its method, or its recipe where they have several of that method."""
    recipes = {other["recipe"] for other in rows if other["method"] == row["method"]}
    return row["recipe"] if row["recipe"] and len(recipes) > 1 else row["method"]


def markdown(lines: list[list[str]]) -> str:
    """Cells as a Markdown table; the second line is the rule."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def values(rows: Iterable[Row], column: str) -> list[str]:
    """What a column holds, each once, in order; not what is empty."""
    return list(dict.fromkeys(row[column] for row in rows if row[column]))


def distinct(rows: Iterable[Row], columns: Iterable[str]) -> set[tuple[str, ...]]:
    """What some columns hold together."""
    columns = tuple(columns)
    return {tuple(row[column] for column in columns) for row in rows}
