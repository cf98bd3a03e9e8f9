"""Tables of what an encoder gains from a user's images, from the rows that ``benchmarks/tune.py`` writes."""

import csv
from pathlib import Path

import torch

from metarep.model.tuning.verdict import paired
from tools.tables.captions import markdown
from tools.tables.places import NOTHING, fill_places

HEAD = (
    "data",
    "px",
    "draws",
    "frozen",
    "with --{by}",
    "gain (95 % interval)",
    "kept in",
    "worst draw",
    "seconds, median",
)


def fill_tuning(text: str, results: Path) -> str:
    r"""Fill the tables of tuning in a text.

    A place for a table is a line ``<!-- tuning:PART -->`` and a line ``<!-- /tuning -->``. PART is ``tune`` or
    ``unlabelled``, the way in which the encoder learned; all rows are of test classes.

    Args:
        text: Markdown.
        results: the folder of result files.

    Returns:
        The whole text.

    >>> print(fill_tuning("<!-- tuning:tune -->\n<!-- /tuning -->", Path("nowhere")))
    <!-- tuning:tune -->
    not measured yet
    <!-- /tuning -->
    """
    path, rows = results / "tune.csv", list[dict[str, str]]()
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    rows = [row for row in rows if row["part"] == "test"]
    return fill_places(text, "tuning", lambda by: _table([row for row in rows if row["by"] == by]))


def _table(rows: list[dict[str, str]]) -> str:
    """The table of one way to learn as Markdown, with a line for each data set."""
    if not rows:
        return NOTHING
    head = [each.format(by=rows[0]["by"]) for each in HEAD]
    lines = [_line(data, [row for row in rows if row["data"] == data]) for data in sorted({r["data"] for r in rows})]
    about = ", ".join(sorted({f"{row['encoder']}, {row['hardware']}" for row in rows}))
    return markdown([head, ["---", *["---:"] * (len(HEAD) - 1)], *lines]) + f"\n\n{about}."


def _line(data: str, rows: list[dict[str, str]]) -> list[str]:
    frozen, guarded, seconds = (
        torch.tensor([float(row[name]) for row in rows]) for name in ("frozen", "guarded", "seconds")
    )
    gain, low, high = paired(guarded - frozen)
    kept = sum(row["kept"] == "True" for row in rows)
    interval = f"{gain:+.2f} ({low:+.2f} to {high:+.2f})"
    means = [f"{each.mean().item():.2f}" for each in (frozen, guarded)]
    worst = f"{(guarded - frozen).min().item():+.1f}"
    return [
        data,
        rows[0]["size"],
        str(len(rows)),
        *means,
        interval,
        f"{kept} of {len(rows)}",
        worst,
        f"{seconds.median().item():.0f}",
    ]
