"""Tables of the README and the docs, made from ``results/``: no number there is typed by hand.

``python -m metarep.tables FILE...`` rewrites what stands between the markers; ``--check`` only says what is stale.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from metarep.errors import MetarepError, unknown
from metarep.results import COLUMNS, read
from metarep.timings import fill_timings

OPENING = re.compile(r"^<!-- table:[^\n]* -->$", re.MULTILINE)
PLACE = re.compile(r"^<!-- table:(?P<what>[^\n]*) -->\n(?P<old>.*?)^<!-- /table -->$", re.MULTILINE | re.DOTALL)
REFERENCES = ("untrained encoder", "raw pixels")
IDENTITY = (  # of a table's row: with data, split, ways and shots this is what a row of a result file is known by
    *("method", "learner", "encoder", "trained_on", "labels", "init"),
    *("normalisation", "queries", "protocol", "tasks", "recipe"),
)
SETTING = ("data", "split", "ways", "shots", "queries", "tasks")
NOTHING = "not measured yet"

Row = dict[str, str]


def fill_tables(text: str, results: Path) -> str:
    r"""The text with every table made anew.

    A place for one is a line ``<!-- table:NAME column=value ... -->`` and a line ``<!-- /table -->``; the rows are
    those of ``results/NAME.csv`` with these values. Rows of the test split are meant unless a filter names another.
    Reference rows of the same setting stand below the trained ones, whatever the filter says of how those were trained.
    Where nothing matches, the table is the line ``not measured yet``.

    Args:
        text: Markdown.
        results: the folder of the CSV files.

    Raises:
        MetarepError: a marker without its end, or a filter on a column that result tables do not have.

    >>> print(fill_tables("<!-- table:omniglot method=protonet -->\n<!-- /table -->", Path("nowhere")))
    <!-- table:omniglot method=protonet -->
    not measured yet
    <!-- /table -->
    """
    closed = {match.start() for match in PLACE.finditer(text) if not OPENING.search(match["old"])}
    for opening in OPENING.finditer(text):
        if opening.start() not in closed:
            raise MetarepError(f"{opening[0]} has no line <!-- /table --> before the next table or the end")

    def fill(match: re.Match[str]) -> str:
        name, *filters = match["what"].split()
        rows = _choose(read(results / f"{name}.csv"), dict(_filter(text) for text in filters))
        return f"<!-- table:{match['what']} -->\n{render(rows)}\n<!-- /table -->"

    return PLACE.sub(fill, text)


def fill_page(text: str, results: Path) -> str:
    """The text with its tables of accuracies and of timings made anew."""
    return fill_timings(fill_tables(text, results), results)


def render(rows: list[Row]) -> str:
    """Rows of a result file as Markdown: a table and its caption for each split that was measured on."""
    splits = dict.fromkeys((row["data"], row["split"]) for row in rows)
    parts = [[row for row in rows if (row["data"], row["split"]) == split] for split in splits]
    return "\n\n".join(f"{_table(part)}\n\n{_caption(part)}" for part in parts) or NOTHING


def _filter(text: str) -> tuple[str, str]:
    column, _, value = text.partition("=")
    if column not in COLUMNS:
        raise unknown("column of a result table", column, COLUMNS)
    return column, value


def _choose(rows: list[Row], wanted: dict[str, str]) -> list[Row]:
    wanted = {"split": "test"} | wanted
    chosen = [row for row in _trained(rows) if all(row[column] == value for column, value in wanted.items())]
    measured = _distinct(chosen, SETTING)
    beside = [row for name in REFERENCES for row in rows if row["method"] == name]
    beside = [row for row in beside if _distinct([row], SETTING) <= measured]
    best: dict[tuple[str, ...], Row] = {}
    for row in sorted(beside, key=lambda row: int(row["tasks"])):  # the same thing, of more tasks
        best[tuple(row[column] for column in ("method", *SETTING[:-1]))] = row
    return chosen + [row for row in beside if row in best.values()]


def _table(rows: list[Row]) -> str:
    settings = sorted({(row["ways"], row["shots"]) for row in rows}, key=lambda pair: [_low(span) for span in pair])
    shown = ["method", "learner", *(c for c in IDENTITY[2:-1] if len(_values(_trained(rows), c)) > 1)]
    if len(_distinct(rows, shown)) < len(_distinct(rows, IDENTITY)):  # recipes of one method that differ in settings
        shown.append("recipe")
    lines: dict[tuple[str, ...], Row] = {}
    cells: dict[tuple[str, ...], dict[tuple[str, str], str]] = {}
    for row in rows:
        who = tuple(row[column] for column in IDENTITY)
        lines.setdefault(who, row)
        cells.setdefault(who, {})[row["ways"], row["shots"]] = _cell(row)
    head = [*(name.replace("_", " ") for name in shown), *(f"{ways}-way {shots}-shot" for ways, shots in settings)]
    body = [
        [*(row[column] for column in shown), *(cells[who].get(setting, "") for setting in settings)]
        for who, row in lines.items()
    ]
    rule = ["---"] * len(shown) + ["---:"] * len(settings)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *body))


def _cell(row: Row) -> str:
    published = f" ({row['published'].removesuffix('0')})" if row["published"] else ""
    return f"{row['accuracy']} ± {row['ci95']}{published}"


def _caption(rows: list[Row]) -> str:
    """What the cells have in common: how they were measured, on what, by which code."""
    trained = _trained(rows)

    def each(column: str) -> str:
        return " or ".join(_values(trained, column))

    recipes = _distinct(trained, ("method", "recipe"))

    def who(row: Row) -> str:
        several = sum(method == row["method"] for method, _ in recipes) > 1
        return row["recipe"] if several and row["recipe"] else row["method"]

    def of_methods(say: Callable[[Row], str]) -> str:
        """What is said of a method's rows, once a method or recipe; rows of which nothing is said are left out."""
        return "; ".join(dict.fromkeys(f"{who(row)}, {say(row)}" for row in trained if say(row)))

    tasks = " or ".join(f"{int(number):,}" for number in _values(trained, "tasks"))
    facts = [
        "Accuracy in percent ± half its 95 % interval over tasks",
        f"{tasks} tasks of {each('queries')} queries a class, {each('protocol')}, {each('normalisation')} statistics",
        f"split {rows[0]['data']}/{rows[0]['split']}; encoder {each('encoder')}, trained on {each('trained_on')}",
    ]
    minutes = of_methods(lambda row: f"{int(row['train_seconds']) / 60:.0f} min" if row["train_seconds"] else "")
    facts += [f"training: {minutes}"] if minutes else []
    spread = of_methods(lambda row: f"mean of {row['seeds']} trainings" if row["seeds"] not in ("", "1") else "")
    facts += [spread] if spread else []
    facts += [f"hardware: {each('hardware')}; commit {each('commit') or 'unknown'}"]
    sources = of_methods(lambda row: row["source"] if row["published"] else "")
    facts += [f"in brackets what was published ({sources})"] if sources else []
    return ". ".join(fact[0].upper() + fact[1:] for fact in facts) + "."


def _trained(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["method"] not in REFERENCES]


def _values(rows: Iterable[Row], column: str) -> list[str]:
    return list(dict.fromkeys(row[column] for row in rows if row[column]))


def _distinct(rows: Iterable[Row], columns: Iterable[str]) -> set[tuple[str, ...]]:
    columns = tuple(columns)
    return {tuple(row[column] for column in columns) for row in rows}


def _low(span: str) -> tuple[int, str]:
    return int(span.partition("-")[0]), span


def main(argv: list[str] | None = None) -> int:
    """Rewrite the files, or with ``--check`` only compare; 1 if a file is stale, 2 for an error."""
    parser = argparse.ArgumentParser(prog="python -m metarep.tables", description="Fill tables from results/*.csv.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="Markdown with table markers")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a table is stale")
    args = parser.parse_args(argv)
    stale = []
    try:
        for file in args.files:
            text = file.read_text("utf-8")
            filled = fill_page(text, args.results)
            if filled != text:
                stale.append(file)
                if not args.check:
                    file.write_text(filled, "utf-8")
    except (MetarepError, OSError) as error:
        print(f"metarep.tables: {error}", file=sys.stderr)
        return 2
    for file in stale:
        print(f"{file}: {'stale' if args.check else 'rewritten'}")
    return 1 if stale and args.check else 0


if __name__ == "__main__":
    sys.exit(main())
