"""Fill the tables of the README and the docs from ``results/``, so that no number there is typed by hand.

``python -m tools.tables.fill FILE...`` rewrites what is between the markers. ``--check`` only names stale files.
"""

import argparse
import re
import sys
from pathlib import Path

from metarep.errors import MetarepError, unknown
from metarep.experiments.measurement.results import COLUMNS, Row, read
from tools.tables.captions import caption, distinct, markdown, name, values
from tools.tables.near_far import fill_near_far
from tools.tables.places import NOTHING
from tools.tables.timings import fill_timings
from tools.tables.trust import fill_trust
from tools.tables.tuning import fill_tuning

OPENING = re.compile(r"^<!-- table:[^\n]* -->$", re.MULTILINE)
PLACE = re.compile(r"^<!-- table:(?P<what>[^\n]*) -->\n(?P<old>.*?)^<!-- /table -->$", re.MULTILINE | re.DOTALL)
REFERENCES = ("untrained encoder", "raw pixels")
IDENTITY = (  # of a table's row: with data, split, ways and shots this is what a row of a result file is known by
    *("method", "learner", "encoder", "size", "trained_on", "labels", "init"),
    *("normalisation", "queries", "protocol", "tasks", "recipe"),
)
SETTING = ("data", "split", "size", "ways", "shots", "queries", "tasks")


def fill_tables(text: str, results: Path) -> str:
    r"""Fill the tables of accuracies in a text.

    A place for a table is a line ``<!-- table:NAME column=value ... -->`` and a line ``<!-- /table -->``. The table has
    the rows of ``results/NAME.csv`` with these values (``column=one,two`` for one of several), of the test split unless
    a filter names another split. Reference rows of the same setting are below the trained ones, even if the filter does
    not match how they were trained. If no row matches, the table is the line ``not measured yet``.

    Args:
        text: Markdown.
        results: the folder of the CSV files.

    Returns:
        The whole text.

    Raises:
        MetarepError: a marker has no end, or a filter names a column that result tables do not have.

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
    """Fill the tables of accuracies, timings, trust, tuning and pretrained encoders in a text, and return the whole."""
    for fill in (fill_tables, fill_timings, fill_trust, fill_tuning, fill_near_far):
        text = fill(text, results)
    return text


def render(rows: list[Row]) -> str:
    """Write rows of a result file as Markdown: a table and its caption for each split."""
    splits = dict.fromkeys((row["data"], row["split"]) for row in rows)
    parts = [[row for row in rows if (row["data"], row["split"]) == split] for split in splits]
    return "\n\n".join(f"{_table(part)}\n\n{caption(_trained(part))}" for part in parts) or NOTHING


def _filter(text: str) -> tuple[str, str]:
    column, _, value = text.partition("=")
    if column not in COLUMNS:
        raise unknown("column of a result table", column, COLUMNS)
    return column, value


def _choose(rows: list[Row], wanted: dict[str, str]) -> list[Row]:
    wanted = {"split": "test"} | wanted
    chosen = [row for row in _trained(rows) if all(row[name] in value.split(",") for name, value in wanted.items())]
    measured = distinct(chosen, SETTING)
    beside = [row for name in REFERENCES for row in rows if row["method"] == name]
    encoders = {row["encoder"] for row in chosen} | {"", "none"}  # an untrained one of another kind says nothing here
    beside = [row for row in beside if distinct([row], SETTING) <= measured and row["encoder"] in encoders]
    best: dict[tuple[str, ...], Row] = {}
    for row in sorted(beside, key=lambda row: int(row["tasks"])):  # the same thing, of more tasks
        best[tuple(row[column] for column in ("method", "encoder", *SETTING[:-1]))] = row
    return chosen + [row for row in beside if row in best.values()]


def _table(rows: list[Row]) -> str:
    settings = sorted({(row["ways"], row["shots"]) for row in rows}, key=lambda pair: [_low(span) for span in pair])
    shown = _columns(_trained(rows))
    lines: dict[tuple[str, ...], Row] = {}
    cells: dict[tuple[str, ...], dict[tuple[str, str], str]] = {}
    for row in rows:
        who = tuple(row[column] for column in IDENTITY)
        lines.setdefault(who, row)
        cells.setdefault(who, {})[row["ways"], row["shots"]] = _cell(row)
    words = {"size": "px"}  # the header says the unit
    head = [
        *(words.get(column, column.replace("_", " ")) for column in shown),
        *(f"{ways}-way {shots}-shot" for ways, shots in settings),
    ]
    body = [
        [
            name(row, rows),
            *(row[column] for column in shown[1:]),
            *(cells[who].get(setting, "") for setting in settings),
        ]
        for who, row in lines.items()
    ]
    rule = ["---"] * len(shown) + ["---:"] * len(settings)
    return markdown([head, rule, *body])


def _columns(trained: list[Row]) -> list[str]:
    """The columns in which rows differ, but for those that follow from another column or are in the caption."""
    differ = [column for column in IDENTITY[2:-1] if len(values(trained, column)) > 1]
    for column, given in (("protocol", ["normalisation"]), ("tasks", ["method", "recipe"])):
        if column in differ and len(distinct(trained, [*given, column])) == len(distinct(trained, given)):
            differ.remove(column)
    return ["method", "learner", *differ]


def _cell(row: Row) -> str:
    published = row["published"].removesuffix("0") + (" recalled" if row["source"].startswith("recalled") else "")
    return f"{row['accuracy']} ± {row['ci95']}{f' ({published})' if row['published'] else ''}"


def _trained(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["method"] not in REFERENCES]


def _low(span: str) -> tuple[int, str]:
    return int(span.partition("-")[0]), span


def main(argv: list[str] | None = None) -> int:
    """Rewrite the files, or only compare them with ``--check``. Return 1 if a file is stale, 2 for an error, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tools.tables.fill", description="Fill tables from results/*.csv.")
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
        print(f"tools.tables.fill: {error}", file=sys.stderr)
        return 2
    for file in stale:
        print(f"{file}: {'stale' if args.check else 'rewritten'}")
    return 1 if stale and args.check else 0


if __name__ == "__main__":
    sys.exit(main())
