"""What an encoder reaches with one image a class, measured beforehand, for models that have nothing to leave out."""

import json
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Shaped
from torch import Generator, Tensor

from metarep.labels import Labels
from metarep.tasks import draw_tasks
from metarep.trust import Trust, measure_trust

if TYPE_CHECKING:
    from metarep.model import Model


def shipped_trust(
    name: str, head: dict[str, Any], ways: int, false_alarms: float, size: tuple[int, int]
) -> Trust | None:
    """The calibration of an encoder and head for tasks of about ``ways`` classes; None if it was never measured.

    The nearest number of ways that was measured counts, and the nearest share of false alarms; its source says which,
    and at what size of the images, where that is another.
    """
    rows = [row for row in _measured() if row["encoder"] == name and row["head"] == head]
    if not rows:
        return None
    nearest = min(rows, key=lambda row: (abs(row["ways"] - ways), abs(row["trust"]["false_alarms"] - false_alarms)))
    trust, side = Trust.of_dict(nearest["trust"]), tuple(nearest["size"])
    source = f"{nearest['ways']} {trust.source}" + (f", at {side[0]} x {side[1]} px" if side != size else "")
    return replace(trust, source=source, calibration=source)


def measure_one_shot(
    model: "Model", rows: Shaped[Tensor, "n *row"], labels: Labels, ways: int, *, source: str, tasks: int = 300
) -> Trust:
    """The calibration of a model's encoder and head on tasks with one image a class.

    Args:
        model: its gallery does not matter.
        rows, labels: prepared images of classes that the encoder was not trained on.
        ways: classes a task.
        source: what these are.
        tasks: how many, of 5 queries a class.
    """
    index = draw_tasks(labels, tasks, ways=ways, shots=1, queries=5, generator=Generator().manual_seed(0))
    scores = []
    for some in torch.arange(tasks).split(16):
        state = model.learner.adapt(rows[index.support[some]], index.support_y[some], ways)
        scores.append(model.learner.logits(state, rows[index.query[some]]).flatten(0, 1))
    return measure_trust(torch.cat(scores), index.query_y.flatten(), model.false_alarms, source)


@cache
def _measured() -> list[dict[str, Any]]:
    path = files("metarep") / "zoo" / "one_shot.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else []
