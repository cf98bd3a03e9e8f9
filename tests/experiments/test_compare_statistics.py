"""Statistics of comparisons, against scipy, tables that were printed, and slow sums."""

import math

import pytest
import torch
from scipy.stats import f, friedmanchisquare, ttest_rel

from metarep.errors import MetarepError
from metarep.experiments.compare.statistics import critical_difference, holm, paired, ranking, ranks_of

# Two-tailed Nemenyi test at 0.05, from 2 to 10 classifiers: Demšar 2006, table 5.
PRINTED = (1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164)


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return 60 + 20 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_one_seed_is_the_paired_t_test() -> None:
    one, other = drawn(1, 40, seed=0), drawn(1, 40, seed=1)
    ours, theirs = paired(one, other), ttest_rel(one[0].numpy(), other[0].numpy())
    interval = theirs.confidence_interval(0.95)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert (ours.mean - ours.ci95, ours.mean + ours.ci95) == pytest.approx((interval.low, interval.high))


def test_what_is_easy_for_both_cancels() -> None:
    hard = drawn(1, 200, seed=2)
    close = paired(hard + 1 + 0.1 * drawn(1, 200, seed=3), hard + 6)
    apart = paired(hard + 1 + 0.1 * drawn(1, 200, seed=3), drawn(1, 200, seed=4) + 6)
    assert close.ci95 < apart.ci95 / 5


def test_several_seeds_add_the_variance_over_seeds() -> None:
    one, other = drawn(3, 50, seed=5) + torch.tensor([[0.0], [4.0], [8.0]]), drawn(2, 50, seed=6)
    tasks, (a, b) = 50, ([row.mean().item() for row in one], [row.mean().item() for row in other])
    each = [sum(one[:, t].tolist()) / 3 - sum(other[:, t].tolist()) / 2 for t in range(tasks)]
    middle = sum(each) / tasks
    parts = [(sum((d - middle) ** 2 for d in each) / (tasks - 1) / tasks, tasks - 1)]
    for means in (a, b):
        centre = sum(means) / len(means)
        parts.append((sum((m - centre) ** 2 for m in means) / (len(means) - 1) / len(means), len(means) - 1))
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / own for part, own in parts)
    ours = paired(one, other)
    assert ours.mean == pytest.approx(middle)
    # Student's density, summed slowly from the mean outward, holds 95 % inside of the interval
    t, steps = ours.ci95 / math.sqrt(variance), 100_000
    norm = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    inside = [(1 + ((i + 0.5) * t / steps) ** 2 / freedom) ** (-(freedom + 1) / 2) for i in range(steps)]
    assert 2 * norm * sum(inside) * t / steps == pytest.approx(0.95, abs=1e-6)
    assert ours.ci95 > paired(one.mean(0, keepdim=True), other.mean(0, keepdim=True)).ci95


@pytest.mark.parametrize(("one", "other"), [((1, 3), (1, 4)), ((1, 1), (1, 1))])
def test_other_tasks_are_refused(one: tuple[int, int], other: tuple[int, int]) -> None:
    with pytest.raises(MetarepError, match="needs the same tasks, at least two"):
        paired(torch.zeros(*one), torch.zeros(*other))


def test_no_spread_is_certain() -> None:
    assert paired(torch.full((1, 3), 80.0), torch.full((1, 3), 70.0)) == (10.0, 0.0, 0.0)


def test_holm_rejects_what_the_step_down_rule_rejects() -> None:
    p = torch.rand(12, generator=torch.Generator().manual_seed(0)).square().mul(0.1).tolist()
    rejected, order = set(), sorted(range(12), key=lambda i: p[i])
    for place, number in enumerate(order):  # the rule as Holm wrote it
        if p[number] > 0.05 / (12 - place):
            break
        rejected.add(number)
    assert 0 < len(rejected) < 12
    assert {number for number, each in enumerate(holm(p)) if each <= 0.05} == rejected
    assert holm([]) == []


def test_ranks_and_friedman() -> None:
    rows = drawn(6, 4, seed=7).tolist()
    assert ranks_of([3.0, 1.0, 3.0, 3.0]) == [2.0, 4.0, 2.0, 2.0]
    found = ranking(rows)
    chi2 = friedmanchisquare(*zip(*rows, strict=True)).statistic
    spread = sum(rank**2 for rank in found.mean) - 4 * 25 / 4
    assert chi2 == pytest.approx(12 * 6 / 20 * spread)
    assert 0 < found.p < 1
    assert ranking([[2.0, 1.0], [2.0, 1.0]]).p == 0
    tied = [[3.0, 2, 2, 1], [3.0, 3, 2, 1], [1.0, 1, 1, 2], [4.0, 3, 2, 2], [1.0, 2, 3, 3]]
    chi2 = friedmanchisquare(*zip(*tied, strict=True)).statistic
    assert ranking(tied).p == pytest.approx(f.sf(4 * chi2 / (5 * 3 - chi2), 3, 12))
    assert ranking([[1.0, 1.0], [1.0, 1.0]]).p == 1
    assert math.isnan(ranking([[2.0, 1.0]]).p)


def test_critical_differences_are_those_of_the_printed_table() -> None:
    for methods, printed in enumerate(PRINTED, 2):
        unit = math.sqrt(methods * (methods + 1) / 6)
        assert critical_difference(methods, 1) / unit == pytest.approx(printed, abs=1e-3)
    assert not ranking([[3.0, 2.0, 1.0]]).can_tell
    assert ranking([[3.0, 2.0, 1.0]] * 10).can_tell
