"""What an encoder reaches with one image a class, measured beforehand, for models that have nothing to leave out."""

import json
import math
from functools import cache
from importlib.resources import files
from typing import Any

from metarep.model.trust.trust import Trust


def shipped_trust(
    name: str, head: dict[str, Any], ways: int, false_alarms: float, size: tuple[int, int]
) -> Trust | None:
    """The calibration of an encoder and head for tasks of about ``ways`` classes; None if it was never measured.

    Nobody can know how hard somebody's classes are without a second image of one. So the accuracy is the middle of what
    was measured on several data sets, and its interval reaches from the lowest to the highest, as its source says.
    Of each data set the nearest number of ways counts, and the nearest share of false alarms.
    """
    rows = [row for row in _measured() if row["encoder"] == name and row["head"] == head]
    nearest = {}
    for row in sorted(rows, key=lambda row: _distance(row, ways, false_alarms), reverse=True):
        nearest[row["trust"]["source"]] = row
    if not nearest:
        return None
    found = [Trust.of_dict(row["trust"]) for row in nearest.values()]
    accuracies = [trust.accuracy for trust in found if trust.accuracy is not None]
    low, high = min(accuracies), max(accuracies)
    source = "; ".join(_source(row, size) for row in nearest.values())
    return Trust(
        accuracy=round((low + high) / 2, 2),
        interval=(low, high) if len(found) > 1 else found[0].interval,
        tested=sum(trust.tested for trust in found),
        scale=math.exp(sum(math.log(trust.scale) for trust in found) / len(found)),
        known=min(trust.known for trust in found),
        likely=min(trust.likely for trust in found),
        false_alarms=found[0].false_alarms,
        source=source,
        calibration=source,
    )


def _distance(row: dict[str, Any], ways: int, false_alarms: float) -> tuple[float, float]:
    return abs(math.log(row["ways"] / ways)), abs(row["trust"]["false_alarms"] - false_alarms)


def _source(row: dict[str, Any], size: tuple[int, int]) -> str:
    side = tuple(row["size"])
    where = f", at {side[0]} x {side[1]} px" if side != size else ""
    return f"{row['trust']['accuracy']:.0f} % on {row['ways']} {row['trust']['source']}{where}"


@cache
def _measured() -> list[dict[str, Any]]:
    path = files("metarep.weights") / "one_shot.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else []
