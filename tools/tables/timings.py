"""Tables of timings in the docs, made from ``results/timings/*.json``, which the benchmarks write with ``--out``."""

import json
from pathlib import Path
from typing import Any

from tools.tables.captions import hardware_words, markdown
from tools.tables.places import NOTHING, fill_places


def fill_timings(text: str, results: Path) -> str:
    r"""Fill the tables of timings in a text.

    A place for a table is a line ``<!-- timings:NAME -->`` and a line ``<!-- /timings -->``. The table has the rows of
    ``results/timings/NAME.json``. Its columns are the keys of the rows. What was left out is named below it.

    Args:
        text: Markdown.
        results: the folder of result files.

    Returns:
        The whole text.

    >>> print(fill_timings("<!-- timings:tasks -->\n<!-- /timings -->", Path("nowhere")))
    <!-- timings:tasks -->
    not measured yet
    <!-- /timings -->
    """

    def table(name: str) -> str:
        file = results / "timings" / f"{name}.json"
        return render(json.loads(file.read_text("utf-8"))) if file.exists() else NOTHING

    return fill_places(text, "timings", table)


def render(content: dict[str, Any]) -> str:
    """Write the content of a file of timings as Markdown: the table, the hardware, and what was left out and why."""
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
    hardware = f"Hardware: {hardware_words(content['hardware'])}. " if "hardware" in content else ""  # or in the rows
    return f"{table}\n\n{hardware}{content['note']}.{left}"
