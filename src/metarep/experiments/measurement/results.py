"""Results tables: ``results/DATA.csv``, with one row for each measurement."""

import csv
import re
import subprocess
from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any

from metarep.errors import MetarepError
from metarep.experiments.measurement.reliability import FIGURES as RELIABILITY_FIGURES
from metarep.machine.files import locked, replacing

SUBJECT = (  # what was measured, and on what
    *("method", "learner", "data", "split", "trained_on", "labels", "init", "encoder", "size"),
    *("normalisation", "ways", "shots", "queries", "protocol", "tasks"),
)
FIGURES = ("seeds", "accuracy", "ci95", "seed_sd", "published", "source", "train_seconds", "hardware")
COLUMNS = [*SUBJECT, *FIGURES, "recipe", "digest", "commit"]
RELIABILITY = [*RELIABILITY_FIGURES]  # columns that a table has if one of its rows was measured with reliability
# Rows with the same key measure the same thing, and a table holds one of them. The digest of the tasks is not in the
# key, because tasks of another seed are another sample of the same thing.
KEY = (*SUBJECT, "recipe")
Row = dict[str, str]
NUMBERS = {"ways": r"\d+(-\d+)?", "shots": r"\d+(-\d+)?", "queries": r"\d+", "tasks": r"\d+", "train_seconds": r"\d*"}


def record(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows into a table. A new row replaces an old one with the same ``KEY``.

    Tables of earlier versions have no ``size``, the side of the images in pixels. A row of one is replaced whatever the
    size of the new row is.

    Args:
        path: a CSV file; made if it does not exist.
        rows: values of ``COLUMNS`` by name; a column may be missing. accuracy, ci95 and seed_sd are in percent. The
            columns ``RELIABILITY`` are written if any row has them; see
            :class:`metarep.experiments.measurement.reliability.Reliability`.

    Raises:
        MetarepError: the existing file is not a results table.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock")):  # two processes may record at the same time
        table = {_key(row): row for row in read(path)}
        for row in rows:
            text = {column: _text(row.get(column, "")) for column in COLUMNS}
            text |= {column: _text(row.get(column, ""), ".4g") for column in RELIABILITY}
            table.pop(_key(text | {"size": ""}), None)
            table[_key(text)] = text
        more = [name for name in RELIABILITY if any(row[name] for row in table.values())]
        with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*COLUMNS, *more], extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(table[key] for key in sorted(table))


def read(path: Path) -> list[Row]:
    """The rows of a table, as text by column; an empty list if the file does not exist.

    Args:
        path: a CSV file.

    Raises:
        MetarepError: other columns, a line of another length, or text instead of a number. The message names the line.

    >>> read(Path("no such table.csv"))
    []
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            header = reader.fieldnames or ()
            known = {*header, "size"} - set(RELIABILITY)
            if sorted(known) != sorted(COLUMNS) or len(set(header)) < len(header):
                raise MetarepError(f"{path} is not a results table: its first line must be {','.join(COLUMNS)}")
            none = dict.fromkeys(("size", *RELIABILITY), "")
            return [none | _checked(row, header, f"{path}, line {reader.line_num}") for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise MetarepError(f"{path} is not a results table ({error}); repair it, or name another file") from error


def commit() -> str:
    """The Git commit of the checkout that this package runs from; empty if it is not in a checkout.

    A ``+`` at its end says that the package has changes that are not committed.
    """
    folder = Path(__file__).parents[2]  # the package
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


def _checked(row: dict[str, Any], header: Sequence[str], where: str) -> Row:
    """The row, after a check that it has text in every column and numbers where they are needed."""
    if row.keys() != set(header) or None in row.values():  # csv marks too many and too few values so
        raise MetarepError(f"{where}: a row must have {len(header)} values, as the first line; repair or remove it")
    for column, pattern in NUMBERS.items():
        if not re.fullmatch(pattern, row[column], re.ASCII):
            raise MetarepError(f"{where}: {column} is {row[column]!r}, which is not a number; repair or remove the row")
    return row


def _key(row: Row) -> tuple[Any, ...]:
    """A key by which rows are sorted and compared; numbers are sorted before text."""
    return tuple((0, int(row[name]), "") if row[name].isdigit() else (1, 0, row[name]) for name in KEY)


def _text(value: object, digits: str = ".2f") -> str:
    """A value as a table holds it; empty for NaN."""
    return str(value) if not isinstance(value, float) else "" if isnan(value) else f"{value:{digits}}"
