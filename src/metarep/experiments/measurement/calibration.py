"""Calibration: whether probabilities are right as often as they say, and sets of labels that hold the right one."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

BINS = 15  # of the calibration error
COVERAGE = 0.9  # of the label sets
UNIT = 1 << 32  # confidences are added as whole multiples of 1 / UNIT, so that sums over parts are exact
OCTAVES, STEPS = 20, 256  # logarithms from 2**-OCTAVES to 2**OCTAVES are told apart, in STEPS steps of each octave
MIDDLE = 2 * OCTAVES * STEPS
LEVELS = 2 * MIDDLE + 1


def confidence_bins(probability: Float[Tensor, " n"], right: Float[Tensor, " n"]) -> Int[Tensor, "bin 3"]:
    """Count answers by their confidence, in 15 bins of equal width.

    Args:
        probability: the highest probability of each answer.
        right: 1 where the answer is right, otherwise 0.

    Returns:
        For each bin the number of answers, of right answers, and the sum of probabilities in units of ``2**-32``. Whole
        numbers, so the sums of parts have the same digits as the sum of all.

    >>> confidence_bins(torch.tensor([0.5, 1.0]), torch.tensor([0.0, 1.0])).sum(0).tolist() == [2, 1, 3 << 31]
    True
    """
    bin_index = (probability * BINS).ceil().long().clamp(1, BINS) - 1
    units = (probability.double() * UNIT).round().long()
    columns = torch.stack([torch.ones_like(units), right.long(), units], dim=1)
    return columns.new_zeros(BINS, 3).index_add_(0, bin_index, columns)


def calibration_error(bins: Int[Tensor, "bin 3"]) -> float:
    """The expected calibration error: how far confidence is from accuracy, on average over answers.

    It is the mean over answers of the absolute difference between accuracy and mean confidence in the answer's bin.

    Guo et al., On Calibration of Modern Neural Networks, 2017.

    Args:
        bins: from :func:`confidence_bins`; of several parts, their sum.

    Returns:
        The error, from 0 to 1.

    >>> bins = confidence_bins(torch.tensor([0.75, 0.75, 0.75, 0.75]), torch.tensor([1.0, 1.0, 0.0, 0.0]))
    >>> calibration_error(bins)
    0.25
    """
    number, right, units = bins.double().unbind(1)
    return float((right - units / UNIT).abs().sum() / number.sum())


def levels(logits: Float[Tensor, "*query ways"]) -> Int[Tensor, "*query ways"]:
    """How the softmax probability of each class compares with a guess, as a number from 0 to 20,480.

    It is the ratio of its odds to those of one of ``ways`` equal classes. The logarithm of this ratio is 0 for a guess,
    tiny where logits are nearly equal, and hundreds where they are far apart. So its size is rounded down to 1/256 of
    an octave, and the order of probabilities is kept at any temperature. Sizes below one millionth count as 0.

    >>> levels(torch.tensor([0.0, 0.0])).tolist(), levels(torch.tensor([1e-3, 0.0])).tolist()
    ([10240, 10240], [12808, 7672])
    >>> levels(torch.tensor([900.0, 0.0])).tolist(), levels(torch.tensor([800.0, 0.0])).tolist()
    ([17872, 2608], [17828, 2652])
    """
    above = logits - logits.amax(-1, keepdim=True)
    weights, top = above.exp(), logits.argmax(-1, keepdim=True)
    second = weights.scatter(-1, top, 0.0).sum(-1, keepdim=True)  # without the highest: no digits cancel
    others = (1 + second - weights).log_()
    rest = above.scatter(-1, top, -math.inf).logsumexp(-1, keepdim=True)  # and nothing underflows
    ratio = above - others.scatter_(-1, top, rest) + math.log(max(1, logits.shape[-1] - 1))
    size = ((ratio.abs().clamp_(2.0**-OCTAVES, 2.0**OCTAVES).log2_() + OCTAVES) * STEPS).floor_()
    return (MIDDLE + size * ratio.sign()).nan_to_num_(0).int()


def conformal_threshold(counts: Int[Tensor, " level"], coverage: float = COVERAGE) -> int:
    """The level that a class must reach to be in a label set, by split-conformal prediction.

    A set holds every class whose softmax probability is at least that of the ``ceil((n + 1) * coverage)``-th most
    probable true class of ``n`` calibration answers. Sadinle et al., Least Ambiguous Set-Valued Classifiers with
    Bounded Error Levels, 2019; Vovk et al., Algorithmic Learning in a Random World, 2005.

    Args:
        counts: the number of calibration answers whose true class has each level, see :func:`levels`.
        coverage: share of sets that are to hold the right label, from 0 to 1.

    Returns:
        The level; 0, which every class reaches, where there are too few answers to promise the coverage.

    >>> conformal_threshold(torch.tensor([0, 10, 0, 90]), 0.8), conformal_threshold(torch.tensor([0, 1]), 0.9)
    (3, 0)
    """
    need = -(-(int(counts.sum()) + 1) * round(coverage * 1000) // 1000)
    enough = counts.flip(0).cumsum(0) >= need
    return len(counts) - 1 - int(enough.int().argmax()) if bool(enough.any()) else 0
