"""Tables of timings in the docs, made from ``results/timings/*.json``, which the benchmarks write with ``--out``."""

import json
import re
from pathlib import Path
from typing import Any

from tools.tables.captions import markdown

PLACE = re.compile(r"^<!-- timings:(?P<name>[\w-]+) -->\n.*?^<!-- /timings -->$", re.MULTILINE | re.DOTALL)
NOTHING = "not measured yet"


def fill_timings(text: str, results: Path) -> str:
    r"""The text with every table of timings made anew.

    A place is a line ``<!-- timings:NAME -->`` and a line ``<!-- /timings -->``; the rows are those of
    ``results/timings/NAME.json``: columns are the keys of its rows, what was left out is said below.

    Args:
        text: Markdown.
        results: the folder of result files.

    >>> print(fill_timings("<!-- timings:tasks -->\n<!-- /timings -->", Path("nowhere")))
    <!-- timings:tasks -->
    not measured yet
    <!-- /timings -->
    """

    def fill(match: re.Match[str]) -> str:
        file = results / "timings" / f"{match['name']}.json"
        body = render(json.loads(file.read_text("utf-8"))) if file.exists() else NOTHING
        return f"<!-- timings:{match['name']} -->\n{body}\n<!-- /timings -->"

    return PLACE.sub(fill, text)


def render(content: dict[str, Any]) -> str:
    """One file as Markdown: the table, what was left out and why, and the hardware."""
    rows = [row for row in content["rows"] if "left_out" not in row]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---" if isinstance(rows[0].get(column), str) else "---:" for column in columns]]
    lines += [["" if row.get(column) is None else f"{row[column]}" for column in columns] for row in rows]
    table = markdown([[cell.replace("_", " ") for cell in line] for line in lines])
    reasons: dict[str, str] = {}
    for row in content["rows"]:
        if "left_out" in row:
            reasons.setdefault(row["implementation"], row["left_out"])
    left = f" Left out: {'; '.join(f'{name} ({why})' for name, why in reasons.items())}." if reasons else ""
    return f"{table}\n\nHardware: {content['hardware']}. {content['note']}.{left}"
