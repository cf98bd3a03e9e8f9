"""Findings: the values that the page shows, as one object."""

from dataclasses import dataclass
from typing import Any

from metarep.experiments.page.examples import SolvedTask
from metarep.experiments.page.maps import ClassMap

Row = dict[str, Any]


@dataclass(frozen=True)
class Findings:
    """The values that the page shows.

    Args:
        content: the content of ``results.json``.
        columns: ways and shots of the columns of the table; the headline uses the first.
        examples: tasks with the answers of the best method and of raw pixels.
        maps: maps of the best method and of raw pixels.
        drawings: whether the images are dark ink on white, which a dark page inverts.
    """

    content: dict[str, Any]
    columns: list[tuple[int, int]]
    examples: list[SolvedTask]
    maps: list[ClassMap]
    drawings: bool

    def row(self, method: str, ways: int, shots: int) -> Row:
        """The measurement of one method on tasks of one shape."""
        wanted = (method, str(ways), str(shots))
        return next(row for row in self.content["rows"] if (row["method"], row["ways"], row["shots"]) == wanted)

    def methods(self) -> list[Row]:
        """The rows of the first column, with the best method first and the references after all methods."""
        rows = [row for row in self.content["rows"] if (row["ways"], row["shots"]) == tuple(map(str, self.columns[0]))]
        return sorted(rows, key=lambda row: (row["family"] == "reference", -row["accuracy"]))
