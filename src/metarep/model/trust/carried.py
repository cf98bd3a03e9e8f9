"""Extrapolates the accuracy with some images of every class left out to the accuracy with all of them."""

import math

import torch
from jaxtyping import Float, Int
from scipy.special import betaincinv
from torch import Tensor

# How fast the log odds of being right grow with the logarithm of the images a class, measured by benchmarks/trust.py.
# The slope is SLOPE[0] + SLOPE[1] * the share that is right, so it is smaller on harder data. SLOPE_SD is its standard
# deviation between data sets.
SLOPE, SLOPE_SD = (0.35, 0.55), 0.3
WIDER = 1.8  # images of a model share its support set, so they are worth fewer independent images
NONE_WRONG = 99.0  # percent: an upper end above this is set to 100
SETTLED = 30  # turns after which a share and the slope that it has agree
TINY = 1e-9  # errors of each class that are added, so that there is a mean gain where none is wrong
FEW_WRONG = 3.0  # images: with at most so many wrong the upper end is 100, for the true number may be 0


def carried_accuracy(
    right: Float[Tensor, " n"],
    classes: Int[Tensor, " n"],
    counts: Int[Tensor, " ways"],
    left: Float[Tensor, " ways"],
) -> tuple[float, tuple[float, float]]:
    """Estimates the accuracy of a model with all its images, from the accuracy with some left out.

    The log odds of being right grow with the logarithm of the number of images a class. The slope was measured
    beforehand. Classes of different sizes gain differently; what counts is the gain where images were wrong. For a
    class that was not tested, because it has a single image (or copies of one), the same slope goes back from the size
    of the tested ones to one image.
    The interval combines the Jeffreys interval of the tested images with the uncertainty of the slope between data
    sets. Its upper end is 100 if it is above 99, or if at most three images would be wrong.

    Args:
        right: the share of times that each tested image was classified rightly when it was left out, shape ``(n,)``.
        classes: the class index of each of these images, shape ``(n,)``.
        counts: the number of images of each class in the whole gallery, shape ``(ways,)``.
        left: the number of images that each class kept while others were left out, shape ``(ways,)``.

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
    share, sizes = shares.mean().item(), counts.double().log()
    gains = sizes[tested] - left[tested].double().log()
    gain = ((1 - shares + TINY) @ gains / (1 - shares + TINY).sum()).item()
    images = len(tested) ** 2 / (1 / times.double()).sum().item() / WIDER
    wrong = images * (1 - share)
    low, high = (
        betaincinv(images * share + 0.5, wrong + 0.5, 0.025),
        betaincinv(images * share + 0.5, wrong + 0.5, 0.975),
    )
    low, high = (0.0 if share == 0 else low), (1.0 if share == 1 else high)
    slope = SLOPE[0] + SLOPE[1] * share
    middle = _log_odds((images * share + 0.5) / (images + 1))

    def ends(by: float, slope: float) -> list[float]:
        """The ends in percent, after so much more of the logarithm of the number of images."""
        found = []
        for end, side in ((low, -1), (high, 1)):
            if end in (0.0, 1.0):
                found.append(100 * end)
                continue
            away = math.hypot(_log_odds(end) - middle, 1.96 * SLOPE_SD * by)
            found.append(100 * _share(middle + slope * by + side * away))
        return found

    odds = math.exp(slope * gain) * share
    accuracy = round(100 * odds / (odds + 1 - share), 2)
    bottom, top = ends(gain, slope)
    few = len(right) * (1 - accuracy / 100) <= FEW_WRONG
    bottom, top = min(bottom, accuracy), max(100.0 if few or top > NONE_WRONG else top, accuracy)
    untested = torch.ones_like(counts, dtype=torch.bool).index_fill(0, tested, False)
    if untested.any():
        back = gain - sizes[tested].mean().item()
        part, other = untested.double().mean().item(), share
        for _ in range(SETTLED):
            other = _share(middle + (SLOPE[0] + SLOPE[1] * other) * back)  # the slope is that of the fewer images
        low_end, high_end = ends(back, SLOPE[0] + SLOPE[1] * other)
        other *= 100
        mixed = ((accuracy, other), (bottom, min(low_end, other)), (top, max(high_end, other)))
        accuracy, bottom, top = (round((1 - part) * own + part * theirs, 2) for own, theirs in mixed)
    return accuracy, (round(bottom, 2), round(top, 2))


def _log_odds(share: float) -> float:
    """Returns the log odds of a share, which is above 0 and below 1."""
    return math.log(share / (1 - share))


def _share(log_odds: float) -> float:
    """Returns the share that has these log odds."""
    return 1 / (1 + math.exp(-log_odds))
