"""Result tables: ``results/DATA.csv``, a row a measurement."""

import csv
import re
import subprocess
from pathlib import Path
from typing import Any

from metarep.errors import MetarepError
from metarep.machine.files import locked, replacing

SUBJECT = (  # what was measured, and on what
    *("method", "learner", "data", "split", "trained_on", "labels", "init", "encoder"),
    *("normalisation", "ways", "shots", "queries", "protocol", "tasks"),
)
FIGURES = ("seeds", "accuracy", "ci95", "seed_sd", "published", "source", "train_seconds", "hardware")
COLUMNS = [*SUBJECT, *FIGURES, "recipe", "digest", "commit"]
# Two rows of one key measure the same thing. The digest of the tasks is not in the key: tasks of another seed are
# another sample of the same thing, and a table has room for one.
KEY = (*SUBJECT, "recipe")
Row = dict[str, str]
NUMBERS = {"ways": r"\d+(-\d+)?", "shots": r"\d+(-\d+)?", "queries": r"\d+", "tasks": r"\d+", "train_seconds": r"\d*"}


def record(path: Path, rows: list[dict[str, Any]]) -> None:
    """Put rows into a table; one that measures the same thing again (``KEY``) takes the old one's place.

    Args:
        path: a CSV file; made if it is not there.
        rows: every column of ``COLUMNS`` that is known; accuracy, ci95 and seed_sd in percent.

    Raises:
        MetarepError: the file that is there is no result table.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock")):  # or of two that record at once, one's rows would be lost
        table = {_key(row): row for row in read(path)}
        for row in rows:
            text = {column: _text(row.get(column, "")) for column in COLUMNS}
            table[_key(text)] = text
        with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(table[key] for key in sorted(table))


def read(path: Path) -> list[Row]:
    """All rows of a table; none if there is no file.

    Raises:
        MetarepError: other columns, a line of another length, or a word where a number belongs; the line is named.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            if sorted(reader.fieldnames or ()) != sorted(COLUMNS):
                raise MetarepError(f"{path} is no result table: its first line must be {','.join(COLUMNS)}")
            return [_checked(row, f"{path}, line {reader.line_num}") for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise MetarepError(f"{path} is no result table ({error}); mend it, or name another file") from error


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


def _checked(row: dict[str, Any], where: str) -> Row:
    """The row, if it has text for every column and numbers where tables count with them."""
    if row.keys() != set(COLUMNS) or None in row.values():  # csv's marks for too many values and for too few
        raise MetarepError(f"{where}: a row has {len(COLUMNS)} values, as the first line; mend or remove it")
    for column, pattern in NUMBERS.items():
        if not re.fullmatch(pattern, row[column], re.ASCII):
            raise MetarepError(f"{where}: {column} is {row[column]!r}, which is no number; mend or remove the row")
    return row


def _key(row: Row) -> tuple[Any, ...]:
    return tuple((0, int(row[name]), "") if row[name].isdigit() else (1, 0, row[name]) for name in KEY)


def _text(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
