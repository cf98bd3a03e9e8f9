"""Shards of a measurement: parts of its tasks that are measured by separate commands and merged to the same digits."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarep.errors import Advice, Call, MetarepError, Slot
from metarep.experiments.measurement.interval import interval
from metarep.experiments.measurement.reliability import FIGURES, Reliability, Tally
from metarep.machine.files import replacing
from metarep.machine.untrusted import parse_json

FORMAT = "metarep shard 1"
# What a row says of its tasks; merging computes these anew
OF_TASKS = ("accuracy", "ci95", "tasks", "seconds", "per_task", "tally", *FIGURES)
ELSEWHERE = ("hardware", "run", "commit")  # what may differ between machines


class Shard(NamedTuple):
    """One of several equal parts of the tasks of every measurement.

    Attributes:
        number: from 1 to ``of``.
        of: the number of shards.
    """

    number: int
    of: int

    @staticmethod
    def read(text: str) -> "Shard":
        """Read ``2/4``, the second of four shards.

        Raises:
            ValueError: the text is not two whole numbers, or the first is not from 1 to the second.

        >>> Shard.read("2/4")
        Shard(number=2, of=4)
        """
        number, of = (int(part) for part in text.split("/"))
        if not 1 <= number <= of:
            raise ValueError(text)
        return Shard(number, of)


def write_shard(path: Path, shard: Shard, rows: Sequence[tuple[dict[str, Any], Tensor, Tally | None]]) -> None:
    """Write the measurements of one shard to a file.

    Args:
        path: the file, JSON; its folder is made if it does not exist.
        shard: which part of the tasks was measured.
        rows: for each measurement, its row of a results table, the accuracy of each task in percent, and the counts of
            its reliability, if that was measured.
    """
    content = {
        "format": FORMAT,
        "shard": list(shard),
        "rows": [
            {**row, "per_task": per_task.tolist(), **({"tally": tally.as_dict()} if tally else {})}
            for row, per_task, tally in rows
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(json.dumps(content))


def merge_shards(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The rows of a results table from the files of all shards, with the digits of one measurement of all tasks.

    Args:
        paths: the files, in any order.

    Raises:
        MetarepError: a file is not a shard, a shard is missing or given twice, or they are not of one measurement.
    """
    shards = sorted((_read(path) for path in paths), key=lambda each: each["shard"])
    of = shards[0]["shard"][1]
    given = [tuple(each["shard"]) for each in shards]
    if given != [(number, of) for number in range(1, of + 1)]:
        numbers = ", ".join(f"{number}/{count}" for number, count in given)
        raise MetarepError(f"{of} shards are needed, each once, and these are {numbers}; give one file for each shard")
    merged = []
    for rows in zip(*(each["rows"] for each in shards), strict=True):
        _refuse_others(rows)
        per_task = torch.tensor([task for row in rows for task in row["per_task"]])
        accuracy, ci95 = interval(per_task)
        own = {name: value for name, value in rows[0].items() if name not in ("per_task", "tally")}
        totals = {name: sum(row[name] for row in rows) for name in ("tasks", "seconds")}
        merged.append({**own, "accuracy": accuracy, "ci95": ci95, **totals})
        if "tally" in rows[0]:
            tally = Tally.join([Tally.of_dict(row["tally"]) for row in rows])
            merged[-1] |= Reliability.of(tally, per_task, rows[0]["without_unknown"]).as_dict()
    return merged


def _refuse_others(rows: Sequence[dict[str, Any]]) -> None:
    """Raise an error unless the rows are parts of one measurement."""
    free = {*OF_TASKS, *ELSEWHERE}
    if len({"tally" in row for row in rows}) > 1:
        raise MetarepError(
            "only some of the shards measured the reliability; measure all of them with the same command"
        )
    for row in rows[1:]:
        for name, value in rows[0].items():
            if name not in free and row.get(name) != value:
                raise MetarepError(
                    f"the shards are of different measurements: {name} is {value!r} in one and {row.get(name)!r} in "
                    "another; measure all of them with the same command"
                )


def _read(path: Path) -> dict[str, Any]:
    wrong = f"{path} is not a shard that metarep evaluate has written"
    try:
        content = parse_json(path.read_text())
        number, of = content["shard"]
        right = content["format"] == FORMAT and 1 <= int(number) <= int(of) and bool(content["rows"])
        right &= all(len(row["per_task"]) == row["tasks"] and row["seconds"] >= 0 for row in content["rows"])
        for row in content["rows"]:
            right &= "tally" not in row or len(Tally.of_dict(row["tally"]).per_task) == row["tasks"]
    except OSError as error:
        right, content, wrong = False, {}, f"{path} cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, RuntimeError):
        right, content = False, {}
    if not right:
        made = Call("evaluate", "evaluate", Slot("RUN"), shard=Slot("1/4"), out=Slot("FILE"))
        raise MetarepError(wrong, advice=Advice("{made} writes one", made=made))
    return content
