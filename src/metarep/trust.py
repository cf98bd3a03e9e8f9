"""Trust: how far the answers of a model can be relied on, by what it says of its own images when each is left out."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarep.errors import MetarepError

SCALES = torch.logspace(-1.5, 2.5, 161, dtype=torch.float64)
FEWEST = 10  # images that must have been left out for anything to be calibrated by them
DOUBTED = 0.1  # an image whose own class gets less than this, and another more than half, looks mislabelled


@dataclass(frozen=True)
class Trust:
    """Calibration of scores.

    Args:
        accuracy: in percent, of the images tested; None if there were none.
        interval: the 95 % interval of the accuracy over images, in percent; Wilson's, so that it is no point where all
            are right.
        tested: images left out, one after the other.
        scale: multiplies scores before the softmax, so that a probability is how often it is right.
        known: the highest score of an image below this: none of these classes.
        likely: classes whose probability is at least this make the label set.
        false_alarms: share of images of known classes that are taken for none of these, and whose label set lacks
            their class, at most, if they are like those tested.
        source: what ``accuracy`` is from: ``leave-one-out``, or what else the encoder was measured on.
        calibration: the same of ``scale``, ``known`` and ``likely``; empty where there was too little to set them by.
    """

    accuracy: float | None
    interval: tuple[float, float] | None
    tested: int
    scale: float = 1.0
    known: float = -math.inf
    likely: float = 0.0
    false_alarms: float = 0.05
    source: str = "leave-one-out"
    calibration: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Fields as JSON holds them; no threshold is None."""
        return {**asdict(self), "known": None if math.isinf(self.known) else self.known}

    @classmethod
    def of_dict(cls, fields: dict[str, Any]) -> "Trust":
        known = -math.inf if fields["known"] is None else fields["known"]
        interval = fields["interval"] and tuple(fields["interval"])
        return cls(**{"calibration": fields["source"], **fields, "known": known, "interval": interval})

    def __str__(self) -> str:
        if self.accuracy is None or self.interval is None:
            return "unknown"
        return f"{self.accuracy:.1f} % ({self.interval[0]:.1f} to {self.interval[1]:.1f})"


@dataclass(frozen=True)
class Suspect:
    """An image that looks as if it were in the wrong class.

    Args:
        row: which.
        likelier: the class that it looks like.
        probability: of that class, when the image is left out.
    """

    row: int
    likelier: int
    probability: float


def measure_trust(
    scores: Float[Tensor, "n ways"],
    labels: Int[Tensor, " n"],
    false_alarms: float = 0.05,
    source: str = "leave-one-out",
) -> Trust:
    """Calibrate by scores of images whose class is known and which the model had not seen.

    ``known`` and ``likely`` are conformal thresholds (Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World,
    2005): the ``floor(false_alarms * (n + 1))``-th smallest value, so that the share of false alarms among further
    images like these is at most ``false_alarms``. Trap: with too few images there is no such value, and the threshold
    is then minus infinity: nothing is ever taken for unknown.

    Args:
        scores: logits; of images that are alone in their class they say nothing, so leave those out.
        labels: their classes.
        false_alarms: see :class:`Trust`.
        source: see :class:`Trust`.

    >>> trust = measure_trust(torch.eye(3).repeat(20, 1) * 4, torch.arange(3).repeat(20))
    >>> trust.accuracy, trust.tested, trust.known
    (100.0, 60, 4.0)
    """
    if not 0 < false_alarms < 1:
        raise MetarepError(f"false_alarms is a share, above 0 and below 1, not {false_alarms}")
    if not len(scores):
        return Trust(None, None, 0, false_alarms=false_alarms, source=source)
    right, tested = int((scores.argmax(-1) == labels).sum()), len(scores)
    accuracy, interval = 100 * right / tested, wilson(right, tested)
    if tested < FEWEST or scores.shape[1] < 2:
        return Trust(accuracy, interval, tested, false_alarms=false_alarms, source=source)
    scale = fit_scale(scores, labels)
    own = (scores * scale).softmax(-1).gather(1, labels.unsqueeze(1)).flatten()
    known, likely = _low(scores.amax(-1), false_alarms), _low(own, false_alarms)
    return Trust(accuracy, interval, tested, scale, known, max(0.0, likely), false_alarms, source, source)


def wilson(right: int, tested: int) -> tuple[float, float]:
    """The 95 % interval of a share, in percent (Wilson, Probable Inference, JASA 1927).

    >>> wilson(60, 60)
    (93.98, 100.0)
    """
    share, z2 = right / tested, 1.96**2
    middle = share + z2 / (2 * tested)
    half = 1.96 * math.sqrt(share * (1 - share) / tested + z2 / (4 * tested**2))
    low, high = ((middle + side * half) / (1 + z2 / tested) for side in (-1, 1))
    return round(100 * max(low, 0.0), 2), round(100 * min(high, 1.0), 2)


def fit_scale(scores: Float[Tensor, "n ways"], labels: Int[Tensor, " n"]) -> float:
    """The multiplier of the scores under which the labels are likeliest, from a grid (Guo et al., On Calibration of
    Modern Neural Networks, 2017, whose temperature is its inverse). One pseudo-image of uniform answers keeps it finite
    where all are right.
    """
    logs = (SCALES.view(-1, 1, 1) * scores.double()).log_softmax(-1)
    own = logs.gather(2, labels.view(1, -1, 1).expand(len(SCALES), -1, 1)).sum((1, 2))
    uniform = logs.mean((1, 2))
    return SCALES[(own + uniform).argmax()].item()


def find_suspects(
    scores: Float[Tensor, "n ways"], labels: Int[Tensor, " n"], scale: float, rows: Sequence[int]
) -> list[Suspect]:
    """Images that look mislabelled, the most certain first; ``rows`` are what to call them."""
    probabilities = (scores * scale).softmax(-1)
    best, likelier = probabilities.max(-1)
    own = probabilities.gather(1, labels.unsqueeze(1)).flatten()
    found = ((own < DOUBTED) & (best > 0.5)).nonzero().flatten().tolist()
    return sorted(
        (Suspect(rows[i], int(likelier[i]), best[i].item()) for i in found), key=lambda each: -each.probability
    )


def _low(values: Float[Tensor, " n"], share: float) -> float:
    place = math.floor(share * (len(values) + 1))
    return values.sort().values[place - 1].item() if place else -math.inf
