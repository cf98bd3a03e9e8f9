"""Trust: how far the answers of a model can be relied on, by what it says of its own images when they are left out."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarep.errors import MetarepError
from metarep.model.trust.carried import carried_accuracy

FEWEST = 6  # images that must have been left out for anything to be calibrated by them
DOUBT = 0.25  # of an image of uniform answers, which keeps the scale finite where all images are right
SOFTER = 0.25  # scores grow with the images a class faster than what is right does (benchmarks/trust.py)
WRONG = 1.5  # images of a class that are told wrong before more of it are asked for
DOUBTED = 0.1  # an image whose own class gets less than this, and another more than half, looks mislabelled
SCALES = (1e-3, 1e3)  # between which a scale is looked for
ROWS = 1 << 22  # numbers of scores that are held at a time


@dataclass(frozen=True)
class ClassTrust:
    """What is known of one class.

    Args:
        accuracy: in percent, of its images that were left out; None where it has too few to leave one out.
        interval: Wilson's 95 % interval, in percent.
        tested: images of it that were left out.
        needs: whether more images of it would help most: it has one only, or the upper end of its interval is below the
            model's accuracy and more than one of its images was told wrong.
    """

    accuracy: float | None
    interval: tuple[float, float] | None
    tested: int
    needs: bool


@dataclass(frozen=True)
class Trust:
    """Calibration of scores.

    Args:
        accuracy: in percent, expected of further images, classes weighing the same; None if nothing was left out.
        interval: the 95 % interval of the accuracy, in percent; see
            :func:`metarep.model.trust.carried.carried_accuracy`.
        tested: images that were left out.
        scale: multiplies scores before the softmax, so that a probability is how often it is right.
        known: an image of a lower :class:`metarep.model.trust.familiarity.Familiarity` is none of these classes.
        likely: classes whose probability is at least this make the label set.
        false_alarms: share of images of known classes that are taken for none of these, and whose label set lacks
            their class, at most, if they are like those tested.
        source: what ``accuracy`` is from: ``leave-one-out``, or what else the encoder was measured on.
        calibration: the same of ``scale``, ``known`` and ``likely``; empty where there was too little to set them by.
        classes: what is known of each class, in the order of the gallery; empty where nothing was left out.
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
    classes: tuple[ClassTrust, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Fields as JSON holds them; no threshold is None."""
        return {**asdict(self), "known": None if math.isinf(self.known) else self.known}

    @classmethod
    def of_dict(cls, fields: dict[str, Any]) -> "Trust":
        """A trust as :meth:`as_dict` wrote it."""
        known = -math.inf if fields["known"] is None else fields["known"]
        interval = fields["interval"] and tuple(fields["interval"])
        classes = tuple(
            ClassTrust(**{**each, "interval": each["interval"] and tuple(each["interval"])})
            for each in fields.get("classes", ())
        )
        return cls(
            **{"calibration": fields["source"], **fields, "known": known, "interval": interval, "classes": classes}
        )

    def __str__(self) -> str:
        if self.accuracy is None or self.interval is None:
            return "unknown"
        return f"{self.accuracy:.1f} % ({self.interval[0]:.1f} to {self.interval[1]:.1f})"


@dataclass(frozen=True)
class HeldOut:
    """What a model says of its images when they are left out.

    Args:
        scores: logits, a row for each time that an image was left out.
        rows: which image each row is of; an image may come several times.
        gain: log of the images a class there are, less that of those that were left.
    """

    scores: Float[Tensor, "tested ways"]
    rows: Int[Tensor, " tested"]
    gain: float

    def each(self, values: Float[Tensor, " tested"]) -> tuple[Int[Tensor, " images"], Float[Tensor, " images"]]:
        """The images that were left out, in order, and the mean of their values."""
        images, place, times = self.rows.unique(return_inverse=True, return_counts=True)
        return images, values.new_zeros(len(images)).index_add(0, place, values) / times


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
    held: HeldOut,
    classes: Int[Tensor, " n"],
    ways: int,
    false_alarms: float = 0.05,
    source: str = "leave-one-out",
    *,
    known: float = -math.inf,
) -> Trust:
    """Calibrate by scores of images whose class is known and which the model had not seen.

    ``likely`` is a conformal threshold (Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World, 2005): the
    ``floor(false_alarms * (n + 1))``-th smallest probability of the own class, so that the share of further images like
    these whose label set lacks their class is at most ``false_alarms``. Trap: with too few images there is no such
    value, and every class is in the label set.

    Args:
        held: see :class:`HeldOut`.
        classes: of each image of the gallery.
        ways: number of classes.
        false_alarms, source: see :class:`Trust`.
        known: the threshold of :func:`metarep.model.trust.familiarity.known_threshold`.

    Raises:
        MetarepError: false alarms that are no share.

    >>> held = HeldOut(torch.eye(3).repeat(20, 1) * 4, torch.arange(60), gain=0.0)
    >>> trust = measure_trust(held, torch.arange(3).repeat(20), 3)
    >>> trust.accuracy, trust.tested, trust.classes[0].accuracy
    (100.0, 60, 100.0)
    """
    check_share(false_alarms)
    if not len(held.rows):
        return Trust(None, None, 0, known=known, false_alarms=false_alarms, source=source)
    labels = classes[held.rows]
    images, right = held.each((held.scores.argmax(-1) == labels).float())
    accuracy, interval = carried_accuracy(right, classes[images], held.gain)
    trust = Trust(
        accuracy,
        interval,
        len(images),
        known=known,
        false_alarms=false_alarms,
        source=source,
        classes=_by_class(images, right, classes, ways, accuracy),
    )
    if len(images) < FEWEST or ways < 2:
        return trust
    scale = fit_scale(held.scores, labels, _balanced(held.rows, labels)) * math.exp(-SOFTER * held.gain)
    own = held.each((held.scores * scale).softmax(-1).gather(1, labels.unsqueeze(1)).flatten())[1]
    place = math.floor(false_alarms * (len(own) + 1))
    likely = own.sort().values[place - 1].item() if place else 0.0
    return Trust(**{**trust.__dict__, "scale": scale, "likely": likely, "calibration": source})


def check_share(false_alarms: float) -> None:
    """Refuse what is no share.

    Raises:
        MetarepError: it is not above 0 and below 1.
    """
    if not 0 < false_alarms < 1:
        raise MetarepError(f"false_alarms is a share, above 0 and below 1, not {false_alarms}")


def wilson(right: float, tested: int) -> tuple[float, float]:
    """The 95 % interval of a share, in percent (Wilson, Probable Inference, JASA 1927).

    >>> wilson(60, 60)
    (93.98, 100.0)
    """
    share, z2 = right / tested, 1.96**2
    middle = share + z2 / (2 * tested)
    half = 1.96 * math.sqrt(share * (1 - share) / tested + z2 / (4 * tested**2))
    low, high = ((middle + side * half) / (1 + z2 / tested) for side in (-1, 1))
    return round(100 * max(low, 0.0), 2), round(100 * min(high, 1.0), 2)


def fit_scale(
    scores: Float[Tensor, "n ways"], labels: Int[Tensor, " n"], weights: Float[Tensor, " n"] | None = None
) -> float:
    """The multiplier of the scores under which the labels are likeliest (Guo et al., On Calibration of Modern Neural
    Networks, 2017, whose temperature is its inverse). A part of a pseudo-image of uniform answers keeps it finite where
    all are right.

    The likelihood is concave in the scale, so its slope is bisected; memory does not grow with the number of classes.

    Args:
        scores: logits.
        labels: the classes.
        weights: of each row; they should add up to the number of images.

    >>> round(fit_scale(torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 0, 0, 1])), 2)
    1.02
    """
    given = torch.ones(len(labels)) if weights is None else weights
    given = given.double().to(scores.device)
    uniform = DOUBT * given / given.sum()

    def slope(scale: float) -> float:
        total = 0.0
        some = max(1, ROWS // scores.shape[1])
        for start in range(0, len(scores), some):
            part, own = scores[start : start + some].double(), labels[start : start + some].unsqueeze(1)
            expected = ((part * scale).softmax(-1) * part).sum(-1)
            total += (given[start : start + some] * (part.gather(1, own).flatten() - expected)).sum().item()
            total += (uniform[start : start + some] * (part.mean(-1) - expected)).sum().item()
        return total

    low, high = (math.log(end) for end in SCALES)
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if slope(math.exp(middle)) > 0 else (low, middle)
    return math.exp((low + high) / 2)


def find_suspects(held: HeldOut, classes: Int[Tensor, " n"], scale: float) -> list[Suspect]:
    """Images that look mislabelled, the most certain first.

    Probabilities are averaged over the times that an image was left out, so one unlucky fold accuses nobody.
    """
    labels = classes[held.rows]
    probabilities = (held.scores * scale).softmax(-1)
    images, own = held.each(probabilities.gather(1, labels.unsqueeze(1)).flatten())
    place = torch.full((len(classes),), -1).scatter(0, images, torch.arange(len(images)))[held.rows]
    mean = probabilities.new_zeros(len(images), probabilities.shape[1]).index_add(0, place, probabilities)
    best, likelier = (mean / place.bincount().unsqueeze(1)).max(-1)
    found = ((own < DOUBTED) & (best > 0.5)).nonzero().flatten().tolist()
    return sorted(
        (Suspect(int(images[i]), int(likelier[i]), best[i].item()) for i in found), key=lambda each: -each.probability
    )


def _balanced(rows: Int[Tensor, " tested"], labels: Int[Tensor, " tested"]) -> Float[Tensor, " tested"]:
    """Weights under which all classes count the same, and which add up to the number of images."""
    counts = labels.bincount().double()
    return len(rows.unique()) / (counts > 0).sum() / counts[labels]


def _by_class(
    images: Int[Tensor, " images"], right: Float[Tensor, " images"], classes: Tensor, ways: int, accuracy: float
) -> tuple[ClassTrust, ...]:
    tested = classes[images].bincount(minlength=ways).tolist()
    rights = right.new_zeros(ways).index_add(0, classes[images], right).tolist()
    found = []
    for count, own in zip(tested, rights, strict=True):
        if not count:
            found.append(ClassTrust(None, None, 0, needs=True))
            continue
        interval = wilson(own, count)
        needs = interval[1] < accuracy and count - own >= WRONG
        found.append(ClassTrust(round(100 * own / count, 2), interval, count, needs=needs))
    return tuple(found)
