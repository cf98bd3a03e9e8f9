"""Verdict: whether a tuned encoder is better than the frozen one on images that neither has seen."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from metarep.errors import counted
from metarep.model.trust.trust import ClassTrust, HeldOut, Trust, fit_scale
from metarep.model.trust.units import mean_of_units

Z = 1.96  # standard errors in half a 95 % interval


@dataclass(frozen=True)
class Verdict:
    """The comparison of an encoder before and after a tuning, by images that were left out of it.

    Args:
        kept: whether the tuned encoder was taken.
        before, after: the accuracy in percent of the frozen and of the tuned encoder.
        gain: the difference in percentage points, with its paired 95 % interval.
        surprise: how much the mean negative log-likelihood of the true class went down (nats), with its paired 95 %
            interval.
        images: number of images that were left out.
        folds: number of tunings that were tested.
        why: why nothing was tried; empty otherwise.
        unlabelled: number of images without labels that the encoder learned from.

    >>> str(Verdict(True, 70.0, 74.0, (4.0, 0.5, 7.5), (0.2, 0.1, 0.3), 100, 5))[:66]
    'kept: 74.0 % of 100 images left out are right, 70.0 % without (+4.'
    """

    kept: bool
    before: float | None = None
    after: float | None = None
    gain: tuple[float, float, float] | None = None
    surprise: tuple[float, float, float] | None = None
    images: int = 0
    folds: int = 0
    why: str = ""
    unlabelled: int = 0

    @property
    def discount(self) -> float:
        """How much the accuracy after it is too high, in percentage points, because the same images chose it.

        Of encoders that are equally good, those are kept that happened to do better on these images. What is left of
        the gain is its maximum likelihood under that choice: that of a normal distribution which is cut off below one
        standard error. Nothing is left of a gain of less than 1.5 standard errors, and nearly all of one of three. A
        tuning is kept more readily than that, and then its accuracy is rather too low than too high.

        >>> round(Verdict(True, 70.0, 78.0, (8.0, 2.5, 13.5)).discount, 2)
        0.25
        >>> Verdict(True, 70.0, 72.0, (2.0, -4.0, 8.0)).discount
        2.0
        """
        gain, low, high = self.gain or (0.0, 0.0, 0.0)
        error = (high - low) / (2 * Z)
        if not self.kept or gain <= 0 or error <= 0:
            return 0.0
        return gain - error * _mean_before_choice(gain / error)

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them."""
        return asdict(self)

    @classmethod
    def read(cls, saved: dict[str, Any]) -> "Verdict":
        """The verdict that :meth:`as_dict` gave, after a way through JSON."""
        fields: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in saved.items()}
        return cls(**fields)

    def __str__(self) -> str:
        if self.gain is None:
            return f"not tried: {self.why}"
        gain, low, high = self.gain
        figures = (
            f"{self.after:.1f} % of {counted(self.images, 'image')} left out are right, {self.before:.1f} % without "
            f"({gain:+.1f} points, 95 % interval {low:.1f} to {high:.1f})"
        )
        if self.surprise is not None:
            rise, least, most = self.surprise
            figures += f"; log-likelihood of the true class {rise:+.3f} ({least:.3f} to {most:.3f})"
        if self.kept:
            return f"kept: {figures}"
        return f"not kept, as it is {'worse' if high < 0 else 'not surely better'}: {figures}"


def _mean_before_choice(seen: float) -> float:
    """The mean, at least 0, of a normal distribution of deviation 1 whose values above 1 have the mean ``seen``."""

    def above(mean: float) -> float:
        density = math.exp(-((1 - mean) ** 2) / 2) / math.sqrt(2 * math.pi)
        return mean + density / (math.erfc((1 - mean) / math.sqrt(2)) / 2)

    low, high = 0.0, seen
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle) < seen else (low, middle)
    return low


def judge(
    before: Float[Tensor, "tested ways"],
    after: Float[Tensor, "tested ways"],
    rows: Int[Tensor, " tested"],
    classes: Int[Tensor, " n"],
    folds: int,
    units: Int[Tensor, " n"] | None = None,
    *,
    surely: bool = False,
) -> Verdict:
    """Compares the scores of images that were left out.

    The tuned encoder is kept if more images are right; or as many, and the mean log-likelihood of the true class rises.
    Each encoder's scores get the scale that suits them best, so that the comparison is not one of temperatures.

    Args:
        before, after: the scores of the frozen and of the tuned encoder.
        rows: the image that each score belongs to; an image may be left out several times, and then counts once.
        classes: the class of each image.
        folds: number of tunings.
        units: a number for each image; images with the same one count as one. By default each image is a unit.
        surely: keep it only if no fewer images are right, and the log-likelihood rises by more than its standard error.

    >>> import torch
    >>> rows, classes = torch.arange(40), torch.arange(2).repeat_interleave(20)
    >>> good = torch.nn.functional.one_hot(classes, 2) + torch.rand(40, 2) / 2
    >>> judge(torch.rand(40, 2), good, rows, classes, 5).kept, judge(good, good, rows, classes, 5).kept
    (True, False)
    """
    labels, images, right, likely = classes[rows], rows.unique(), [], []
    own = images if units is None else units[images]
    for scores in (before, after):
        logs = (scores * fit_scale(scores, labels)).log_softmax(-1).gather(1, labels.unsqueeze(1)).flatten()
        for found, values in ((right, (scores.argmax(-1) == labels).float()), (likely, logs)):
            found.append(mean_of_units(HeldOut(scores, rows).each(values)[1], own)[1])
    gain, surprise = (paired(100 * (right[1] - right[0])), paired(likely[1] - likely[0]))
    better = gain[0] > 0 or (gain[0] == 0 and surprise[0] > 0)
    kept = gain[0] >= 0 and surprise[0] > (surprise[2] - surprise[0]) / Z if surely else better
    was, now = (round(100 * each.mean().item(), 2) for each in right)
    return Verdict(kept, was, now, gain, surprise, len(images), folds)


def paired(differences: Float[Tensor, " n"]) -> tuple[float, float, float]:
    """The mean of paired differences, and its 95 % interval.

    >>> import torch
    >>> paired(torch.tensor([1.0, 1.0, 1.0]))
    (1.0, 1.0, 1.0)
    """
    mean, half = differences.mean().item(), 0.0
    if len(differences) > 1:
        half = Z * differences.std().item() / math.sqrt(len(differences))
    return round(mean, 4), round(mean - half, 4), round(mean + half, 4)


@dataclass(frozen=True)
class Tuning:
    """What a model remembers of the tuning of its encoder.

    Args:
        verdict: the test that decided.
        trust: the trust of the model, measured on the images that each fold left out of the tuning. Leaving an image
            out of the gallery alone would say too much: the encoder has learned it.
        names: the classes that the trust was measured on, in its order.

    >>> tuning = Tuning(Verdict(True), Trust(90.0, (80.0, 95.0), 40), ("moth", "fly"))
    >>> Tuning.read(tuning.as_dict()) == tuning
    True
    """

    verdict: Verdict
    trust: Trust
    names: tuple[str, ...]

    def trust_of(self, names: Sequence[str]) -> Trust:
        """The trust of a model with these classes. Those that the encoder was not tuned on have not been tested."""
        own = dict(zip(self.names, self.trust.classes, strict=False))
        untested = ClassTrust(None, None, 0, needs=False)
        return replace(self.trust, classes=tuple(own.get(name, untested) for name in names) if own else ())

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them."""
        return {"verdict": self.verdict.as_dict(), "trust": self.trust.as_dict(), "names": list(self.names)}

    @classmethod
    def read(cls, saved: dict[str, Any]) -> "Tuning":
        """The tuning that :meth:`as_dict` gave, after a way through JSON."""
        return cls(Verdict.read(saved["verdict"]), Trust.of_dict(saved["trust"]), tuple(saved["names"]))
