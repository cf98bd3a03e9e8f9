"""The accuracy of an encoder with one image a class, measured beforehand for models that cannot leave images out."""

import json
import math
from functools import cache
from importlib.resources import files
from typing import Any

from metarep.model.head import without_level
from metarep.model.trust.trust import Trust


def shipped_trust(
    name: str, head: dict[str, Any], ways: int, false_alarms: float, size: tuple[int, int], *, classified: bool = True
) -> Trust | None:
    """Returns the calibration that was measured for an encoder and a head, with one image a class.

    Without a second image of a class, nobody can know how hard the classes of a user are. So the accuracy is the middle
    between the lowest and the highest that was measured on several data sets, and its interval reaches from one to the
    other. From each data set, the measurement with the nearest number of classes is taken, and among these the one with
    the nearest share of false alarms.

    Args:
        name: the name of the encoder.
        head: the name and settings of the learner.
        ways: the number of classes of the model.
        false_alarms: see :class:`metarep.model.trust.trust.Trust`.
        size: height and width of the images of the model, in pixels. The source names the size of a measurement if it
            is another one.
        classified: whether the encoder has its classifier, where it was measured with one. Encoders in folders of
            earlier versions have none, and a threshold of their own.

    Returns:
        The trust; None if this encoder was not measured with this head.
    """
    rows = [row for row in _measured() if row["encoder"] == name and without_level(row["head"]) == without_level(head)]
    nearest = {}
    for row in sorted(rows, key=lambda row: _distance(row, ways, false_alarms), reverse=True):
        nearest[row["trust"]["source"]] = row
    if not nearest:
        return None
    trusts = [Trust.of_dict(row["trust"]) for row in nearest.values()]
    accuracies = [trust.accuracy for trust in trusts if trust.accuracy is not None]
    low, high = min(accuracies), max(accuracies)
    source = "; ".join(_source(row, size) for row in nearest.values())
    return Trust(
        accuracy=round((low + high) / 2, 2),
        interval=(low, high) if len(trusts) > 1 else trusts[0].interval,
        tested=sum(trust.tested for trust in trusts),
        scale=math.exp(sum(math.log(trust.scale) for trust in trusts) / len(trusts)),
        known=min(_threshold(row, classified) for row in nearest.values()),
        likely=min(trust.likely for trust in trusts),
        false_alarms=trusts[0].false_alarms,
        source=source,
        calibration=source,
    )


def _distance(row: dict[str, Any], ways: int, false_alarms: float) -> tuple[float, float]:
    """Returns how far a measurement is from the wanted number of classes, and from the wanted share of false alarms."""
    return abs(math.log(row["ways"] / ways)), abs(row["trust"]["false_alarms"] - false_alarms)


def _threshold(row: dict[str, Any], classified: bool) -> float:
    """Returns the threshold of familiarity of a measurement, for points with or without the classifier."""
    known = row["trust"]["known"]
    return known if classified else row.get("known_without_classifier", known)


def _source(row: dict[str, Any], size: tuple[int, int]) -> str:
    """Describes a measurement: its accuracy, the data set, and its image size where that is not ``size``."""
    measured_size = tuple(row["size"])
    at_size = f", at {measured_size[0]} x {measured_size[1]} px" if measured_size != size else ""
    return f"{row['trust']['accuracy']:.0f} % on {row['ways']} {row['trust']['source']}{at_size}"


@cache
def _measured() -> list[dict[str, Any]]:
    """Reads the measurements that are installed with the library."""
    path = files("metarep.weights") / "one_shot.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else []
