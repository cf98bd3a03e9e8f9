"""Statistics of a comparison: paired differences, Holm's correction, and ranks with their critical difference."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from scipy.special import fdtrc, stdtr, stdtrit
from torch import Tensor

from metarep.errors import MetarepError

Accuracies = Float[Tensor, "_ _"]  # a row for each seed, a column for each task


class Difference(NamedTuple):
    """A mean difference of two accuracies on the same tasks, in points of percent.

    Attributes:
        mean: the first accuracy minus the second.
        ci95: half the width of its 95 % interval.
        p: two-sided probability of a mean at least as far from 0, if there was no difference.
    """

    mean: float
    ci95: float
    p: float


def paired(one: Accuracies, other: Accuracies) -> Difference:
    """The difference of two methods that were measured on the same tasks.

    The difference of each task counts, so what makes a task easy for both cancels. Its variance has two parts: that
    over tasks, of the differences of the means over seeds; and that over seeds, of the means over tasks. Seeds of
    different methods have nothing in common, so their parts are added. A method of a single seed has no such part: the
    difference is then that of these weights, and not of the methods. The interval and the probability are those of
    Student's t with the degrees of freedom of Welch and Satterthwaite.

    Args:
        one, other: the accuracy in percent of each seed on each task; the same tasks in the same order, at least two.

    Raises:
        MetarepError: the tasks differ in number, or there are fewer than two.

    >>> same = torch.tensor([[50.0, 70.0, 90.0]])
    >>> paired(same + torch.tensor([1.0, 2.0, 3.0]), same).mean
    2.0
    >>> paired(same, same).p
    1.0
    """
    tasks = one.shape[1]
    if tasks != other.shape[1] or tasks < 2:
        raise MetarepError(
            f"a paired difference needs the same tasks, at least two; these are {tasks} and {other.shape[1]}"
        )
    one, other = one.double(), other.double()
    each = one.mean(0) - other.mean(0)
    several = [accuracies.mean(1) for accuracies in (one, other) if len(accuracies) > 1]
    parts = [(values.var().item() / len(values), len(values) - 1) for values in (each, *several)]
    mean, variance = each.mean().item(), sum(part for part, _ in parts)
    if variance == 0:
        return Difference(mean, 0.0, 1.0 if mean == 0 else 0.0)
    freedom = variance**2 / sum(part**2 / own for part, own in parts)
    error = math.sqrt(variance)
    return Difference(mean, float(stdtrit(freedom, 0.975)) * error, float(2 * stdtr(freedom, -abs(mean) / error)))


def holm(p: Sequence[float]) -> list[float]:
    """Probabilities corrected for the number of comparisons (Holm, 1979).

    If those below 0.05 are called differences, then the probability of calling any wrongly is at most 0.05, however the
    comparisons depend on each other.

    Args:
        p: the probability of each comparison.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, least = [0.0] * len(p), 0.0
    for position, number in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        least = max(least, min(1.0, (len(p) - position) * p[number]))
        corrected[number] = least
    return corrected


def ranks_of(accuracies: Sequence[float]) -> list[float]:
    """The rank of each accuracy, 1 for the best; equal accuracies share the mean of their ranks.

    >>> ranks_of([80.0, 90.0, 80.0])
    [2.5, 1.0, 2.5]
    """
    better = [sum(other > own for other in accuracies) for own in accuracies]
    equal = [sum(other == own for other in accuracies) for own in accuracies]
    return [1 + above + (same - 1) / 2 for above, same in zip(better, equal, strict=True)]


class Ranking(NamedTuple):
    """The mean ranks of several methods over data sets, and how far they must differ.

    Attributes:
        mean: the mean rank of each method; 1 is best.
        data_sets: their number.
        critical: the least difference of two mean ranks that is significant at 0.05, after Nemenyi.
        p: of the test whether the methods differ at all (Friedman, in the form of Iman and Davenport).
    """

    mean: list[float]
    data_sets: int
    critical: float
    p: float

    @property
    def can_tell(self) -> bool:
        """Whether any two mean ranks could differ by as much as the critical difference."""
        return self.critical <= len(self.mean) - 1


def ranking(accuracies: Sequence[Sequence[float]]) -> Ranking:
    """Rank methods over data sets (Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets, 2006).

    Args:
        accuracies: for each data set, the accuracy of each method. Data sets must be independent of each other, which
            several settings of one data set are not.

    >>> three = ranking([[90.0, 80.0, 70.0], [60.0, 50.0, 40.0], [99.0, 98.0, 97.0]])
    >>> three.mean, round(three.critical, 2), three.can_tell
    ([1.0, 2.0, 3.0], 1.91, True)
    """
    sets, methods = len(accuracies), len(accuracies[0])
    rows = [ranks_of(row) for row in accuracies]
    mean = [sum(row[method] for row in rows) / sets for method in range(methods)]
    spread = sum(rank**2 for rank in mean) - methods * (methods + 1) ** 2 / 4
    ties = sum(times**3 - times for row in rows for times in Counter(row).values())
    apart = 1 - ties / (sets * (methods**3 - methods))  # ties make ranks spread less
    friedman = 12 * sets / (methods * (methods + 1)) * spread / apart if apart > 0 else 0.0
    rest = sets * (methods - 1) - friedman
    if sets < 2:
        p = math.nan
    elif rest < 1e-9:
        p = 0.0  # all data sets rank the methods alike
    else:
        freedom = methods - 1
        p = float(fdtrc(freedom, freedom * (sets - 1), (sets - 1) * friedman / rest))
    return Ranking(mean, sets, critical_difference(methods, sets), p)


def critical_difference(methods: int, data_sets: int) -> float:
    """The least difference of two mean ranks that is significant at 0.05 (Nemenyi; Demšar, 2006).

    Args:
        methods: their number, at least 2.
        data_sets: the number of data sets over which ranks are averaged.

    >>> round(critical_difference(5, 30), 3)
    1.114
    """
    quantile = studentized_range(methods) / math.sqrt(2)
    return quantile * math.sqrt(methods * (methods + 1) / (6 * data_sets))


def studentized_range(count: int, level: float = 0.95) -> float:
    """The quantile of the range of ``count`` standard normal numbers: the largest minus the smallest of them.

    >>> round(studentized_range(2), 3), round(studentized_range(10), 3)
    (2.772, 4.474)
    """
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)  # the smallest of them
    density = torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
    below = torch.special.ndtr(x)

    def share(width: float) -> float:
        within = (torch.special.ndtr(x + width) - below) ** (count - 1)
        return count * torch.trapezoid(density * within, x).item()

    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if share(middle) < level else (low, middle)
    return (low + high) / 2
