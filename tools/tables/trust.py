"""Tables of expected and real accuracy, made from ``results/trust.json``, which ``benchmarks/trust.py`` writes."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tools.tables.captions import markdown
from tools.tables.places import NOTHING, fill_places

STRANGERS = ("turned_away", "backgrounds_accepted", "left_out_accepted")
PROMISED = ("promised", "real", "bias", "interval holds it", "calibration error")
TURNED = ("known, turned away", "backgrounds accepted", "left-out classes accepted")
UNEQUAL = (
    *("smallest classes right", "all classes right", "promised", "interval holds it"),
    *("smallest, turned away", "all, turned away", "left-out classes accepted"),
)
GROUPS = (
    *("right on new things", "promised", "interval holds it"),
    *("promised without groups", "interval holds it then"),
)
MEANS = ("right without", "right with", "difference")
Row = dict[str, Any]


def fill_trust(text: str, results: Path) -> str:
    r"""Fill the tables of trust in a text.

    A place for a table is a line ``<!-- trust:PART -->`` and a line ``<!-- /trust -->``. PART is ``promise``,
    ``strangers``, ``unequal``, ``unequal-before``, ``means-euclidean``, ``means-cosine``,
    ``groups``, ``heads`` or ``before``.

    Args:
        text: Markdown.
        results: the folder of result files.

    Returns:
        The whole text.

    >>> print(fill_trust("<!-- trust:heads -->\n<!-- /trust -->", Path("nowhere")))
    <!-- trust:heads -->
    not measured yet
    <!-- /trust -->
    """
    path = results / "trust.json"
    rows: list[Row] = json.loads(path.read_text("utf-8")) if path.is_file() else []
    return fill_places(text, "trust", lambda part: _table(part, [row for row in rows if row["part"] == part]))


def _table(part: str, rows: list[Row]) -> str:
    """The table of one part as Markdown, sorted by data set, classes and images."""
    if not rows:
        return NOTHING
    head, cells = TABLES[part]
    rows = sorted(rows, key=lambda row: (row["data"], row["ways"], row["shots"]))
    lines = [[row["data"], _sizes(row), str(row["draws"]), *cells(row)] for row in rows]
    full = ["data", "classes x images", "draws", *head]
    return markdown([full, ["---", "---", *["---:"] * (len(full) - 2)], *lines])


def _sizes(row: Row) -> str:
    """The classes and their images, such as ``12 x 5``; or ``3 of 1, 9 of 5`` where they are unequal."""
    return row["shots"] if isinstance(row["shots"], str) else f"{row['ways']} x {row['shots']}"


def _promise(row: Row) -> list[str]:
    return [
        f"{row['promised']:.1f}",
        f"{row['real']:.1f}",
        f"{row['bias']:+.1f} ± {row['bias_ci95']:.1f}",
        f"{row['coverage']:.0f} %",
        f"{row['ece']:.1f}",
    ]


def _with_intervals(row: Row, names: Iterable[str]) -> list[str]:
    return [f"{row[name]:.1f} ± {row[f'{name}_ci95']:.1f}" if name in row else "" for name in names]


def _strangers(row: Row) -> list[str]:
    return _with_intervals(row, STRANGERS)


def _unequal(row: Row) -> list[str]:
    shares = ("small_turned_away", "turned_away", "left_out_accepted")
    right = [f"{row['small_real']:.1f}", f"{row['real']:.1f}", f"{row['promised']:.1f}", f"{row['coverage']:.0f} %"]
    return [*right, *_with_intervals(row, shares)]


def _means(row: Row) -> list[str]:
    return [f"{row['without']:.1f}", f"{row['with']:.1f}", f"{row['gain']:+.1f} ± {row['gain_ci95']:.1f}"]


def _groups(row: Row) -> list[str]:
    return [
        f"{row['real']:.1f}",
        f"{row['promised']:.1f}",
        f"{row['coverage']:.0f} %",
        f"{row['without_promised']:.1f}",
        f"{row['without_coverage']:.0f} %",
    ]


def _heads(row: Row) -> list[str]:
    return [f"{row['ours']:.2f}", f"{row['theirs']:.2f}", f"{row['gain']:+.2f} ± {row['gain_ci95']:.2f}"]


TABLES: dict[str, tuple[list[str], Callable[[Row], list[str]]]] = {
    "promise": ([*PROMISED], _promise),
    "strangers": ([*TURNED], _strangers),
    "unequal": ([*UNEQUAL], _unequal),
    "unequal-before": ([*UNEQUAL], _unequal),
    "means-euclidean": ([*MEANS], _means),
    "means-cosine": ([*MEANS], _means),
    "groups": ([*GROUPS], _groups),
    "heads": (["default head", "scikit-learn", "difference"], _heads),
    "before": ([*PROMISED, *TURNED], lambda row: [*_promise(row), *_strangers(row)]),
}
