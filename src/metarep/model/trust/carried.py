"""Extrapolates the accuracy with some images of every class left out to the accuracy with all of them."""

import math

from jaxtyping import Float, Int
from scipy.special import betaincinv
from torch import Tensor

# How fast the log odds of being right grow with the logarithm of the images a class, measured by benchmarks/trust.py.
# The slope is SLOPE[0] + SLOPE[1] * the share that is right, so it is smaller on harder data. SLOPE_SD is its standard
# deviation between data sets.
SLOPE, SLOPE_SD = (0.35, 0.55), 0.3
WIDER = 1.8  # images of a model share its support set, so they are worth fewer independent images
NONE_WRONG = 99.0  # percent: an upper end above this is set to 100
FEW_WRONG = 3.0  # images: with at most so many wrong the upper end is 100, for the true number may be 0


def carried_accuracy(
    right: Float[Tensor, " n"],
    classes: Int[Tensor, " n"],
    gain: float,
) -> tuple[float, tuple[float, float]]:
    """Estimates the accuracy of a model with all its images, from the accuracy with some left out of every class.

    The log odds of being right grow with the logarithm of the number of images a class. The slope was measured
    beforehand. The interval combines the Jeffreys interval of the tested images with the uncertainty of the slope
    between data sets. Its upper end is 100 if it is above 99, or if at most three images would be wrong.

    Args:
        right: the share of times that each image was classified rightly when it was left out, shape ``(n,)``.
        classes: the class index of each of these images, shape ``(n,)``.
        gain: the log of the images a class in the whole gallery, minus the log of those that a fold keeps.

    Returns:
        The accuracy, with all classes weighted equally, and the ends of its 95 % interval; all in percent.

    >>> import torch
    >>> accuracy, (low, high) = carried_accuracy(torch.ones(60), torch.arange(60) % 12, 0.22)
    >>> accuracy, round(low), high
    (100.0, 94, 100.0)
    """
    _, class_index, counts = classes.unique(return_inverse=True, return_counts=True)
    share = (right.double().new_zeros(len(counts)).index_add(0, class_index, right.double()) / counts).mean().item()
    images = len(counts) ** 2 / (1 / counts.double()).sum().item() / WIDER
    wrong = images * (1 - share)
    low, high = (
        betaincinv(images * share + 0.5, wrong + 0.5, 0.025),
        betaincinv(images * share + 0.5, wrong + 0.5, 0.975),
    )
    low, high = (0.0 if share == 0 else low), (1.0 if share == 1 else high)
    slope = SLOPE[0] + SLOPE[1] * share
    middle = _log_odds((images * share + 0.5) / (images + 1))
    unsure = 1.96 * SLOPE_SD * gain
    ends = []
    for end, side in ((low, -1), (high, 1)):
        if end in (0.0, 1.0):
            ends.append(100 * end)
            continue
        away = math.hypot(_log_odds(end) - middle, unsure)
        ends.append(100 * _share(middle + slope * gain + side * away))
    odds = math.exp(slope * gain) * share
    accuracy = round(100 * odds / (odds + 1 - share), 2)
    few = len(right) * (1 - accuracy / 100) <= FEW_WRONG
    top = 100.0 if few or ends[1] > NONE_WRONG else ends[1]
    return accuracy, (round(min(ends[0], accuracy), 2), round(max(top, accuracy), 2))


def _log_odds(share: float) -> float:
    """Returns the log odds of a share, which is above 0 and below 1."""
    return math.log(share / (1 - share))


def _share(log_odds: float) -> float:
    """Returns the share that has these log odds."""
    return 1 / (1 + math.exp(-log_odds))
