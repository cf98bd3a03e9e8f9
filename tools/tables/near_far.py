"""Tables of what meta-training adds to a pretrained encoder, from the rows that ``benchmarks/near_far.py`` writes."""

import csv
from pathlib import Path

from tools.tables.captions import markdown
from tools.tables.places import NOTHING, fill_places

Row = dict[str, str]


def fill_near_far(text: str, results: Path) -> str:
    r"""Fill the tables of pretrained encoders in a text.

    A place for a table is a line ``<!-- near-far:HEAD -->`` and a line ``<!-- /near-far -->``. HEAD is a head of
    ``benchmarks/near_far.py``. The table has a line for each data set and shape of tasks: the accuracy of the frozen
    encoder, and what each other encoder adds to it on the same tasks.

    Args:
        text: Markdown.
        results: the folder of result files.

    Returns:
        The whole text.

    >>> print(fill_near_far("<!-- near-far:ridge -->\n<!-- /near-far -->", Path("nowhere")))
    <!-- near-far:ridge -->
    not measured yet
    <!-- /near-far -->
    """
    path, rows = results / "near-far.csv", list[Row]()
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    return fill_places(text, "near-far", lambda head: _table([row for row in rows if row["head"] == head]))


def _table(rows: list[Row]) -> str:
    """The table of one head as Markdown."""
    frozen = [row for row in rows if not row["trained"]]
    if not frozen:
        return NOTHING
    trained = list(dict.fromkeys(row["trained"] for row in rows if row["trained"]))
    head = ["data", "px", "tasks", f"{frozen[0]['encoder']}, frozen", *(f"after {each}" for each in trained)]
    lines = [
        [row["data"], row["px"], f"{row['ways']}-way {row['shots']}-shot", f"{row['accuracy']} ± {row['ci95']}"]
        + [_gain(rows, row, each) for each in trained]
        for row in frozen
    ]
    queries = " or ".join(map(str, sorted({int(row["queries"]) for row in frozen})))
    about = f"{frozen[0]['tasks']} tasks of {queries} queries a class, inductive; "
    about += ", ".join(sorted({row["hardware"] for row in rows}))
    return markdown([head, ["---", "---:", "---", *["---:"] * (len(head) - 3)], *lines]) + f"\n\n{about}."


def _gain(rows: list[Row], frozen: Row, trained: str) -> str:
    """What an encoder adds on the tasks of a row, in points, with its paired 95 % interval."""
    same = ("data", "ways", "shots")
    found = [row for row in rows if row["trained"] == trained and all(row[name] == frozen[name] for name in same)]
    if not found:
        return ""
    gain, low, high = (float(found[0][name]) for name in ("gain", "gain_low", "gain_high"))
    fewer = "" if found[0]["tasks"] == frozen["tasks"] else f", {found[0]['tasks']} tasks"
    return f"{gain:+.2f} ({low:+.2f} to {high:+.2f}{fewer})"
