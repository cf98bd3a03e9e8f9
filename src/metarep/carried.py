"""Carried: from the accuracy with some images left out of every class to that with all of them, with an interval."""

import math

import torch
from jaxtyping import Float, Int
from scipy.stats import beta
from torch import Tensor

SLOPE, SLOPE_SD = 0.65, 0.35  # of the log odds of being right over the log of the images a class (benchmarks/trust.py)
WIDER = 1.15  # images of a model share its support, so they say less than as many independent ones


def carried_accuracy(
    right: Float[Tensor, " n"],
    classes: Int[Tensor, " n"],
    gain: float,
) -> tuple[float, tuple[float, float]]:
    """Accuracy over classes that weigh the same, in percent, and its 95 % interval.

    The log odds of being right grow with the logarithm of the number of images a class, by a slope that was measured on
    other data sets. The interval adds what the slope differs by between data sets to the interval of Jeffreys of the
    images that were tested.

    Args:
        right: of each image that was left out, the share of times that it was told right.
        classes: of each image.
        gain: log of the images a class there are, less that of those that were left.

    Returns:
        The accuracy, and the interval.

    >>> accuracy, (low, high) = carried_accuracy(torch.ones(60), torch.arange(60) % 12, 0.22)
    >>> accuracy, round(low), high
    (100.0, 95, 100.0)
    """
    _, place, counts = classes.unique(return_inverse=True, return_counts=True)
    share = (right.double().new_zeros(len(counts)).index_add(0, place, right.double()) / counts).mean().item()
    images = len(counts) ** 2 / (1 / counts.double()).sum().item() / WIDER
    wrong = images * (1 - share)
    low, high = beta.ppf(0.025, images * share + 0.5, wrong + 0.5), beta.ppf(0.975, images * share + 0.5, wrong + 0.5)
    low, high = (0.0 if share == 0 else low), (1.0 if share == 1 else high)
    middle = _log_odds((images * share + 0.5) / (images + 1))
    unsure = 1.96 * SLOPE_SD * gain
    ends = []
    for end, side in ((low, -1), (high, 1)):
        if end in (0.0, 1.0):
            ends.append(100 * end)
            continue
        away = math.hypot(_log_odds(end) - middle, unsure)
        ends.append(100 * _share(middle + SLOPE * gain + side * away))
    odds = math.exp(SLOPE * gain) * share
    accuracy = 100 * odds / (odds + 1 - share)
    return accuracy, (round(min(ends[0], accuracy), 2), round(max(ends[1], accuracy), 2))


def _log_odds(share: float) -> float:
    return math.log(share / (1 - share))


def _share(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds))
