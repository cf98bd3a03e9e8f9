"""What stands below a table of results: how its rows were measured, and where each of them comes from."""

from collections.abc import Iterable

from metarep.results import Row


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
    facts += [f"training: {_minutes(row)}"] if row["train_seconds"] else []
    facts += [f"mean of {row['seeds']} trainings"] if row["seeds"] not in ("", "1") else []
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
    methods = distinct(trained, ("method", "recipe"))
    sources: dict[tuple[str, ...], list[str]] = {}
    for row in trained:
        alone = sum(method == row["method"] for method, _ in methods) == 1
        who = row["method"] if alone or not row["recipe"] else row["recipe"]
        often = f", mean of {row['seeds']} trainings" if row["seeds"] not in ("", "1") else ""
        minutes = _minutes(row) if row["train_seconds"] else ""
        known = (who, f"{int(row['tasks']):,}", minutes + often, row["hardware"], row["commit"] or "unknown")
        sources.setdefault(known, []).extend([row["source"]] if row["published"] else [])
    head = ["row", "tasks", "training", "hardware", "commit", "figure in brackets"]
    lines = [[*known, "; ".join(dict.fromkeys(found))] for known, found in sources.items()]
    table = markdown([head, ["---", "---:", "---:", "---", "---", "---"], *lines])
    return f"<details>\n<summary>Where each row comes from</summary>\n\n{table}\n\n</details>"


def _minutes(row: Row) -> str:
    seconds = int(row["train_seconds"])
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds} s"


def _sentences(facts: list[str]) -> str:
    return ". ".join(fact[0].upper() + fact[1:] for fact in facts) + "."


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
