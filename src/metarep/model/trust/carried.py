"""Carried: from the accuracy with some images left out of every class to that with all of them, with an interval."""

import math

from jaxtyping import Float, Int
from scipy.special import betaincinv
from torch import Tensor

# The slope of the log odds of being right over the log of the images a class, by benchmarks/trust.py: it is smaller on
# harder data. SLOPE[0] + SLOPE[1] * the share that is right, and how much it differs between data sets.
SLOPE, SLOPE_SD = (0.35, 0.55), 0.3
WIDER = 1.8  # images of a model share its support, so they say less than as many independent ones
NONE_WRONG = 99.0  # percent: an upper end above is 100
FEW_WRONG = 3.0  # images: with no more wrong ones the upper end is 100, for that may as well be none


def carried_accuracy(
    right: Float[Tensor, " n"],
    classes: Int[Tensor, " n"],
    gain: float,
) -> tuple[float, tuple[float, float]]:
    """Accuracy over classes that weigh the same, in percent, and its 95 % interval.

    The log odds of being right grow with the logarithm of the number of images a class, by a slope that was measured
    beforehand. To the interval of Jeffreys of the images that were tested comes what the slope differs by between data
    sets. Its upper end is 100 where that is above 99, or where
    at most three images would be wrong.

    Args:
        right: of each image that was left out, the share of times that it was told right.
        classes: of each image.
        gain: log of the images a class there are, less that of those that were left.

    Returns:
        The accuracy, and the interval.

    >>> import torch
    >>> accuracy, (low, high) = carried_accuracy(torch.ones(60), torch.arange(60) % 12, 0.22)
    >>> accuracy, round(low), high
    (100.0, 94, 100.0)
    """
    _, place, counts = classes.unique(return_inverse=True, return_counts=True)
    share = (right.double().new_zeros(len(counts)).index_add(0, place, right.double()) / counts).mean().item()
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
    return math.log(share / (1 - share))


def _share(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds))
