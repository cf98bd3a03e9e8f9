"""Result tables: ``results/DATA.csv``, a row a measurement."""

import csv
import subprocess
from pathlib import Path
from typing import Any

COLUMNS = [
    "method",
    "learner",
    "data",
    "split",
    "trained_on",
    "labels",
    "init",
    "encoder",
    "normalisation",
    "ways",
    "shots",
    "queries",
    "protocol",
    "tasks",
    "seeds",
    "accuracy",
    "ci95",
    "seed_sd",
    "published",
    "source",
    "train_seconds",
    "hardware",
    "recipe",
    "digest",
    "commit",
]
KEY = (
    "method",
    "learner",
    "data",
    "split",
    "trained_on",
    "labels",
    "init",
    "encoder",
    "ways",
    "shots",
    "protocol",
    "recipe",
)


def record(path: Path, rows: list[dict[str, Any]]) -> None:
    """Put rows into a table; one that measures the same thing again takes the old one's place.

    Args:
        path: a CSV file; made if it is not there.
        rows: every column of ``COLUMNS`` that is known; accuracy, ci95 and seed_sd in percent.
    """
    table = {_key(row): row for row in read(path)}
    for row in rows:
        text = {column: _text(row.get(column, "")) for column in COLUMNS}
        table[_key(text)] = text
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table[key] for key in sorted(table))
    partial.replace(path)


def read(path: Path) -> list[dict[str, str]]:
    """All rows of a table; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def commit() -> str:
    """The commit of the checkout that this package runs from, with ``+`` where it has changes; empty elsewhere."""
    folder = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--", "."], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _key(row: dict[str, str]) -> tuple[Any, ...]:
    return tuple((0, int(row[name]), "") if row[name].isdigit() else (1, 0, row[name]) for name in KEY)


def _text(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
