"""Trust: the calibration of a model. It is measured by what the model says of its own images when they are left out."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarep.errors import MetarepError
from metarep.model.trust.carried import carried_accuracy
from metarep.model.trust.units import lowest, mean_of_units

FEWEST = 6  # with fewer images left out, nothing is calibrated
DOUBT = 0.25  # weight of a pseudo-image of uniform answers, which keeps the scale finite where all images are right
SOFTER = 0.25  # with more images a class, scores grow faster than accuracy does (benchmarks/trust.py)
WRONG = 1.5  # a class needs more images only if at least this many of its images were classified wrongly
SCALES = (1e-3, 1e3)  # the scale is searched between these
ROWS = 1 << 22  # scores that are held in memory at a time


@dataclass(frozen=True)
class ClassTrust:
    """The measured accuracy of one class.

    Args:
        accuracy: the accuracy in percent on the images of this class that were left out; None if there were none.
        interval: Wilson's 95 % interval of the accuracy, in percent; images of a group, or near copies, count as one.
        tested: the number of images of this class that were left out.
        needs: whether this class is among those that need more images most. Either it has only one image, or the upper
            end of its interval is below the model's accuracy and more than one of its images was classified wrongly.

    >>> owlet = ClassTrust(accuracy=25.0, interval=(4.6, 69.9), tested=4, needs=True)
    >>> f"{owlet.accuracy:.0f} % of {owlet.tested} right" + "; add images" * owlet.needs
    '25 % of 4 right; add images'
    """

    accuracy: float | None
    interval: tuple[float, float] | None
    tested: int
    needs: bool


@dataclass(frozen=True)
class Trust:
    """The expected accuracy of a model, and the calibration of its scores.

    Args:
        accuracy: the accuracy in percent expected on further images, all classes weighted equally; None if unknown.
        interval: the 95 % interval of the accuracy, in percent; see
            :func:`metarep.model.trust.carried.carried_accuracy`.
        tested: the number of images that were left out.
        scale: the factor on the scores before the softmax (an inverse temperature), which calibrates probabilities.
        known: the threshold of :class:`metarep.model.trust.familiarity.Familiarity`. An image that scores lower is
            reported as "none of these".
        likely: the threshold of the label set, which holds the classes with at least this probability.
        false_alarms: the largest accepted share, between 0 and 1, of images of known classes that are rejected as
            "none of these". The same share bounds how often a label set misses the true class. Both hold for images
            like the ones tested.
        source: where ``accuracy`` comes from: ``leave-one-out``, or the data sets that the encoder was measured on.
        calibration: where ``scale``, ``known`` and ``likely`` come from; empty if there were too few images.
        classes: the accuracy of each class, in the order of the gallery; empty if no image was left out.
        lowered_by: the percentage points that ``accuracy`` was lowered by, because the same images have chosen the
            encoder; see :attr:`metarep.model.tuning.verdict.Verdict.discount`.

    >>> trust = Trust(92.5, (86.4, 96.0), tested=120)
    >>> print(trust)
    92.5 % (86.4 to 96.0)
    >>> Trust.of_dict(trust.as_dict()).known
    -inf
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
    lowered_by: float = 0.0

    def lowered(self, points: float) -> "Trust":
        """Returns the trust with an accuracy that is lower by so many percentage points, and its interval too.

        >>> print(Trust(92.5, (86.0, 96.0), tested=120).lowered(2.0))
        90.5 % (84.0 to 94.0)
        """
        if self.accuracy is None or self.interval is None:
            return self
        low, high = (max(0.0, each - points) for each in self.interval)
        accuracy = max(0.0, self.accuracy - points)
        return replace(self, accuracy=accuracy, interval=(low, high), lowered_by=self.lowered_by + points)

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON can hold them. A ``known`` of minus infinity becomes None."""
        return {**asdict(self), "known": None if math.isinf(self.known) else self.known}

    @classmethod
    def of_dict(cls, fields: dict[str, Any]) -> "Trust":
        """Restores a trust from the fields that :meth:`as_dict` returned."""
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
    """The scores of a model on its own images, each from a fold in which the image was left out.

    Args:
        scores: the logits, shape ``(tested, ways)``: one row for each time that an image was left out.
        rows: the gallery row that each row of ``scores`` belongs to, shape ``(tested,)``; it may occur several times.
        left: the number of images that each class kept meanwhile, shape ``(ways,)``; None if scores are not to be
            carried to all images.

    >>> held = HeldOut(torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]]), torch.tensor([0, 1, 0]))
    >>> held.each(torch.tensor([1.0, 1.0, 0.0]))
    (tensor([0, 1]), tensor([0.5000, 1.0000]))
    """

    scores: Float[Tensor, "tested ways"]
    rows: Int[Tensor, " tested"]
    left: Float[Tensor, " ways"] | None = None

    def each(self, values: Float[Tensor, " tested"]) -> tuple[Int[Tensor, " images"], Float[Tensor, " images"]]:
        """Returns the gallery rows that were left out, ascending, and the mean of ``values`` for each of them."""
        return mean_of_units(values, self.rows)


def measure_trust(
    held: HeldOut,
    classes: Int[Tensor, " n"],
    ways: int,
    false_alarms: float = 0.05,
    source: str = "leave-one-out",
    *,
    known: float = -math.inf,
    alone: Float[Tensor, " classes"] | None = None,
    units: Int[Tensor, " n"] | None = None,
) -> Trust:
    """Calibrates a model by its scores on images of known class that it had not seen.

    ``likely`` is a conformal threshold (:func:`metarep.model.trust.units.lowest`): the share of further images like
    these whose label set lacks their class is at most ``false_alarms``. Images of a unit count as one, here and in the
    accuracy.

    Args:
        held: the scores of the images that were left out.
        classes: the class index of each image of the gallery, shape ``(n,)``.
        ways: the number of classes.
        false_alarms, source: see :class:`Trust`.
        known: the threshold that :func:`metarep.model.trust.threshold.known_threshold` returns.
        alone: see :func:`metarep.model.trust.carried.carried_accuracy`.
        units: a number for each image of the gallery; images of a class with the same one count as one. By default
            each image is a unit of its own.

    Returns:
        The trust. With fewer than 6 images left out, or a single class, it holds no calibration.

    Raises:
        MetarepError: ``false_alarms`` is not between 0 and 1.

    >>> held = HeldOut(torch.eye(3).repeat(20, 1) * 4, torch.arange(60))
    >>> trust = measure_trust(held, torch.arange(3).repeat(20), 3)
    >>> trust.accuracy, trust.tested, trust.classes[0].accuracy
    (100.0, 60, 100.0)
    """
    check_share(false_alarms)
    if not len(held.rows):
        return Trust(None, None, 0, known=known, false_alarms=false_alarms, source=source)
    labels = classes[held.rows]
    images, right = held.each((held.scores.argmax(-1) == labels).float())
    counts = classes.bincount(minlength=ways)
    left = counts.double() if held.left is None else held.left
    units = torch.arange(len(classes)) if units is None else units
    unit = (units * ways + classes)[images]  # a unit of two classes is one in each
    each, whole = mean_of_units(right, unit)
    accuracy, interval = carried_accuracy(whole, each % ways, counts, left, alone)
    trust = Trust(
        accuracy,
        interval,
        len(images),
        known=known,
        false_alarms=false_alarms,
        source=source,
        classes=_by_class(whole, each % ways, classes[images].bincount(minlength=ways), accuracy),
    )
    if len(images) < FEWEST or ways < 2:
        return trust
    gain = (counts / left).log()[labels.unique()].mean().item()
    scale = fit_scale(held.scores, labels, _balanced(held.rows, labels)) * math.exp(-SOFTER * gain)
    own = held.each((held.scores * scale).softmax(-1).gather(1, labels.unsqueeze(1)).flatten())[1]
    return replace(trust, scale=scale, likely=lowest(own, unit, false_alarms), calibration=source)


def check_share(false_alarms: float) -> None:
    """Checks that ``false_alarms`` is a share.

    Raises:
        MetarepError: it is not above 0 and below 1.
    """
    if not 0 < false_alarms < 1:
        raise MetarepError(f"false_alarms={false_alarms} is not a share; give a number above 0 and below 1")


def wilson(right: float, tested: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share, in percent (Wilson, Probable Inference, JASA 1927).

    Args:
        right: how many were right; a fraction is allowed.
        tested: how many were tested, at least 1.

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
    """Fits the factor on the scores that makes the labels likeliest: the inverse of the temperature of Guo et al. (On
    Calibration of Modern Neural Networks, 2017).

    A pseudo-image of uniform answers is added with a small weight. It keeps the factor finite where all answers are
    right. The log-likelihood is concave in the factor, so its derivative is bisected between 0.001 and 1000. The scores
    are read in parts, so memory does not grow with the number of classes.

    Args:
        scores: the logits, shape ``(n, ways)``.
        labels: the class index of each row, shape ``(n,)``.
        weights: the weight of each row, shape ``(n,)``, by default 1. Their sum should be the number of images.

    >>> round(fit_scale(torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 0, 0, 1])), 2)
    1.02
    """
    given = torch.ones(len(labels)) if weights is None else weights
    given = given.double().to(scores.device)
    uniform = DOUBT * given / given.sum()

    def derivative(scale: float) -> float:
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
        low, high = (middle, high) if derivative(math.exp(middle)) > 0 else (low, middle)
    return math.exp((low + high) / 2)


def _balanced(rows: Int[Tensor, " tested"], labels: Int[Tensor, " tested"]) -> Float[Tensor, " tested"]:
    """Returns a weight for each row. All classes weigh the same, and the sum is the number of images."""
    counts = labels.bincount().double()
    return len(rows.unique()) / (counts > 0).sum() / counts[labels]


def _by_class(
    right: Float[Tensor, " units"], classes: Int[Tensor, " units"], images: Int[Tensor, " ways"], accuracy: float
) -> tuple[ClassTrust, ...]:
    """Returns the accuracy of each class, given the share of times that each tested unit was right, and its class.

    ``images`` is the number of tested images of each class.
    """
    units = classes.bincount(minlength=len(images)).tolist()
    rights = right.new_zeros(len(images)).index_add(0, classes, right).tolist()
    trusts = []
    for tested, count, own in zip(images.tolist(), units, rights, strict=True):
        if not count:
            trusts.append(ClassTrust(None, None, 0, needs=True))
            continue
        interval = wilson(own, count)
        needs = interval[1] < accuracy and count - own >= WRONG
        trusts.append(ClassTrust(round(100 * own / count, 2), interval, tested, needs=needs))
    return tuple(trusts)
