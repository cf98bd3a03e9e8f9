"""Extrapolates the accuracy with some images of every class left out to the accuracy with all of them."""

import math
from typing import NamedTuple

from jaxtyping import Float, Int
from scipy.special import betaincinv
from torch import Tensor

# How fast the log odds of being right grow with the logarithm of the images a class, measured by benchmarks/trust.py.
# The slope is SLOPE[0] + SLOPE[1] * the share that is right, so it is smaller on harder data. SLOPE_SD is its standard
# deviation between data sets.
SLOPE, SLOPE_SD = (0.35, 0.55), 0.3
WIDER = 1.8  # images of a model share its support set, so they are worth fewer independent images
NONE_WRONG = 99.0  # percent: an upper end above this is set to 100
EACH = 3.0  # images that a class of one image is worth: classes differ, and all depends on that image
SETTLED = 30  # turns after which a share and the slope that it has agree
TINY = 1e-9  # errors of each class that are added, so that there is a mean gain where none is wrong
FEW_WRONG = 3.0  # images: with at most so many wrong the upper end is 100, for the true number may be 0


def carried_accuracy(
    right: Float[Tensor, " n"],
    classes: Int[Tensor, " n"],
    counts: Int[Tensor, " ways"],
    left: Float[Tensor, " ways"],
    alone: Float[Tensor, " classes"] | None = None,
) -> tuple[float, tuple[float, float]]:
    """Estimates the accuracy of a model with all its images, from the accuracy with some left out.

    The log odds of being right grow with the logarithm of the number of images a class. The slope was measured
    beforehand. Classes of different sizes gain differently; what counts is the gain where images were wrong. A class of
    a single image (or of copies of one) is not tested. It gets the accuracy of tested classes that keep one image; if
    that was not measured, the same slope goes back from the size of the tested ones to one image.
    The interval combines the Jeffreys interval of the tested images with the uncertainty of the slope between data
    sets. Its upper end is 100 if it is above 99, or if at most three images would be wrong.

    Args:
        right: the share of times that each tested image was classified rightly when it was left out, shape ``(n,)``.
        classes: the class index of each of these images, shape ``(n,)``.
        counts: the number of images of each class in the whole gallery, shape ``(ways,)``.
        left: the number of images that each class kept while others were left out, shape ``(ways,)``.
        alone: the shares of the images of some classes that were classified rightly while their class kept a single
            image, shape ``(classes,)``.

    Returns:
        The accuracy, with all classes weighted equally, and the ends of its 95 % interval; all in percent.

    >>> import torch
    >>> of_five = torch.full((12,), 5), torch.full((12,), 4.0)
    >>> accuracy, (low, high) = carried_accuracy(torch.ones(60), torch.arange(60) % 12, *of_five)
    >>> accuracy, round(low), high
    (100.0, 94, 100.0)
    """
    tested, class_index, times = classes.unique(return_inverse=True, return_counts=True)
    shares = right.double().new_zeros(len(tested)).index_add(0, class_index, right.double()) / times
    share, gains = shares.mean().item(), (counts / left.double()).log()[tested]
    found = _Found(share, len(tested) ** 2 / (1 / times.double()).sum().item() / WIDER)
    gain, slope = ((1 - shares + TINY) @ gains / (1 - shares + TINY).sum()).item(), SLOPE[0] + SLOPE[1] * share
    odds = math.exp(slope * gain) * share
    accuracy = round(100 * odds / (odds + 1 - share), 2)
    bottom, top = found.ends(gain, slope)
    few = len(right) * (1 - accuracy / 100) <= FEW_WRONG
    whole = (accuracy, min(bottom, accuracy), max(100.0 if few else top, accuracy))
    untested = len(counts) - len(tested)
    if untested:
        other = found.of_one_image(left[tested].double())
        other = other if alone is None else _of_some(alone, len(counts), untested, other[0])
        both = zip(whole, other, strict=True)
        whole = tuple((len(tested) * own + untested * theirs) / len(counts) for own, theirs in both)
    accuracy, bottom, top = (round(each, 2) for each in whole)
    return accuracy, (bottom, 100.0 if top > NONE_WRONG else top)


class _Found(NamedTuple):
    """The share of tested images that is right, and the number of independent images that it is worth."""

    share: float
    images: float

    @property
    def middle(self) -> float:
        """The log odds of being right."""
        return _log_odds((self.images * self.share + 0.5) / (self.images + 1))

    def ends(self, by: float, slope: float) -> tuple[float, float]:
        """The ends of the interval in percent, after so much more of the logarithm of the number of images."""
        found = []
        for end, side in zip(_jeffreys(self.share, self.images), (-1, 1), strict=True):
            if end in (0.0, 1.0):
                found.append(100 * end)
                continue
            away = math.hypot(_log_odds(end) - self.middle, 1.96 * SLOPE_SD * by)
            found.append(100 * _share(self.middle + slope * by + side * away))
        return found[0], found[1]

    def of_one_image(self, left: Float[Tensor, " tested"]) -> tuple[float, float, float]:
        """The accuracy of classes of one image and its ends, by the slope; ``left`` is what tested classes kept."""
        back, share = -left.log().mean().item(), self.share
        for _ in range(SETTLED):
            share = _share(self.middle + (SLOPE[0] + SLOPE[1] * share) * back)  # the slope is that of one image
        low, high = self.ends(back, SLOPE[0] + SLOPE[1] * share)
        return 100 * share, min(low, 100 * share), max(high, 100 * share)


def _of_some(alone: Float[Tensor, " classes"], ways: int, untested: int, guess: float) -> tuple[float, float, float]:
    """The accuracy of untested classes and its ends, from that of tested classes that keep one image.

    A class that keeps one image is one large class less beside it. With few classes that makes it too easy. So the
    estimate by the slope, ``guess``, has a weight of one in so many classes.
    """
    share = alone.mean().item() * (1 - 1 / ways) + guess / 100 / ways
    low, high = _jeffreys(share, EACH / (1 / len(alone) + 1 / untested))
    return 100 * share, 100 * low, 100 * high


def _jeffreys(share: float, images: float) -> tuple[float, float]:
    """The ends of the 95 % Jeffreys interval of a share; 0 and 1 for shares of none and all."""
    low, high = (float(betaincinv(images * share + 0.5, images * (1 - share) + 0.5, end)) for end in (0.025, 0.975))
    return (0.0 if share == 0 else low), (1.0 if share == 1 else high)


def _log_odds(share: float) -> float:
    """Returns the log odds of a share, which is above 0 and below 1."""
    return math.log(share / (1 - share))


def _share(log_odds: float) -> float:
    """Returns the share that has these log odds."""
    return 1 / (1 + math.exp(-log_odds))
