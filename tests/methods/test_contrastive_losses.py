"""Losses of two views: each formula against loops."""

import math
import sys

import pytest
import torch
from contrasting import wide
from torch import Generator, Tensor
from torch.nn import functional

from metarep.methods.contrastive import info_nce, negative_cosine, nt_xent


def slow_nt_xent(first: Tensor, second: Tensor, temperature: float) -> float:
    """Algorithm 1 of the paper, one pair at a time."""
    rows = [
        row for pair in zip(first.tolist(), second.tolist(), strict=True) for row in pair
    ]  # 2k, 2k + 1 are partners

    def cosine(a: list[float], b: list[float]) -> float:
        length = math.sqrt(sum(x * x for x in a) * sum(x * x for x in b))
        return sum(x * y for x, y in zip(a, b, strict=True)) / length

    total = 0.0
    for i, row in enumerate(rows):
        partner = i + 1 if i % 2 == 0 else i - 1
        below = sum(math.exp(cosine(row, other) / temperature) for k, other in enumerate(rows) if k != i)
        total += -math.log(math.exp(cosine(row, rows[partner]) / temperature) / below)
    return total / len(rows)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("correlated", [False, True])
def test_nt_xent_is_the_papers_algorithm(temperature: float, correlated: bool) -> None:
    first = wide(7, 5)
    second = first + 0.2 * wide(7, 5, 1) if correlated else wide(7, 5, 1)
    expected = slow_nt_xent(first, second, temperature)
    assert nt_xent(first, second, temperature).item() == pytest.approx(expected, rel=1e-12)
    assert nt_xent(3 * first, second, temperature).item() == pytest.approx(expected, rel=1e-12), "length is no matter"


def test_wrong_masks_give_another_loss() -> None:
    """A self-similarity of zero, or of one, gives a loss near the true one; both must be outside the tolerance."""
    first, second = wide(64, 32), wide(64, 32, 1)
    rows = functional.normalize(torch.cat([first, second]), dim=-1)
    partner = torch.arange(128).roll(64)
    logits = rows @ rows.T / 0.5
    wrong = [functional.cross_entropy(each, partner).item() for each in (logits, logits.clone().fill_diagonal_(0))]
    loss = nt_xent(first, second, 0.5).item()
    assert all(1e-3 < abs(loss - each) < 0.1 for each in wrong)
    assert loss == pytest.approx(math.log(127), abs=0.2), "unrelated views know nothing"


def test_nt_xent_reaches_its_minimum_where_views_agree_and_images_differ() -> None:
    axes = torch.eye(6, dtype=torch.float64)
    lowest = math.log(math.exp(1 / 0.3) + 10) - 1 / 0.3
    assert nt_xent(axes, axes, 0.3).item() == pytest.approx(lowest)
    assert nt_xent(axes, axes.roll(1, 0), 0.3) > lowest + 1
    assert nt_xent(torch.eye(64), torch.eye(64), 0.001).isfinite(), "no exponential without its largest subtracted"


@pytest.mark.parametrize("chunk", [1, 3, 8, 14, 15])
def test_chunks_give_the_same_value_and_gradient(chunk: int) -> None:
    results = []
    for size in (100, chunk):
        first, second = wide(7, 4).requires_grad_(), wide(7, 4, 1).requires_grad_()
        loss = nt_xent(first, second, 0.2, chunk=size)
        results.append((loss, *torch.autograd.grad(loss, (first, second))))
    for whole, part in zip(*results, strict=True):
        torch.testing.assert_close(part, whole, rtol=1e-12, atol=1e-12)


def test_gradients_of_the_losses() -> None:
    first, second, others = wide(4, 3).requires_grad_(), wide(4, 3, 1).requires_grad_(), wide(5, 3, 2)
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.3), (first, second))
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.3, chunk=3), (first, second))
    valid = torch.tensor([True, False, True, True, False])
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a, b, others, 0.3, valid), (first, second))
    assert torch.autograd.gradcheck(lambda a: info_nce(a, second.detach(), others, 0.3, valid), first)
    assert torch.autograd.gradcheck(
        lambda a, b, c: info_nce(a, b, c, 0.3, valid), (first, second, others.clone().requires_grad_())
    )
    assert torch.autograd.gradgradcheck(lambda a, b: info_nce(a, b, others, 0.3, valid), (first, second))
    assert torch.autograd.gradcheck(negative_cosine, (first, second))


def test_info_nce_by_loops() -> None:
    queries, keys, others = (functional.normalize(wide(n, 6, n), dim=-1) for n in (4, 4, 9))
    keys = functional.normalize(queries + 0.3 * keys, dim=-1)
    valid = torch.arange(9) < 5
    for mask, count in ((None, 9), (valid, 5)):
        expected = 0.0
        for query, key in zip(queries, keys, strict=True):
            top = math.exp(query @ key / 0.2)
            expected -= math.log(top / (top + sum(math.exp(query @ other / 0.2) for other in others[:count]))) / 4
        assert info_nce(queries, keys, others, 0.2, mask).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("temperature", [0.005, 0.2])
@pytest.mark.parametrize("known", [0, 3, 9, 20, None])
def test_info_nce_in_parts_is_one_cross_entropy(
    temperature: float, known: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where all negatives of a part are masked, and where a later part has the largest similarity."""
    monkeypatch.setitem(sys.modules[info_nce.__module__].KEYS, "cpu", 7)
    queries, keys, others = (functional.normalize(wide(n, 6, n), dim=-1).requires_grad_(n == 5) for n in (5, 5, 20))
    valid = None if known is None else torch.arange(20) < known
    logits = torch.cat([(queries * keys).sum(1, keepdim=True), (queries @ others.T)[:, slice(known)]], 1) / temperature
    want = functional.cross_entropy(logits, torch.zeros(5, dtype=torch.long))
    got = info_nce(queries, keys, others, temperature, valid)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)
    for one, two in zip(*(torch.autograd.grad(2 * loss, (queries, keys)) for loss in (got, want)), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        assert torch.equal(info_nce(queries, keys, others, temperature, valid), got)
    assert info_nce(queries, keys, others[:0], temperature).item() == 0


def test_info_nce_keeps_no_similarity() -> None:
    queries, keys, others = (functional.normalize(wide(n, 4, n), dim=-1) for n in (64, 64, 10_000))
    with torch.profiler.profile(profile_memory=True) as profile:
        info_nce(queries.requires_grad_(), keys, others, 0.2).backward()
    assert max(event.self_cpu_memory_usage for event in profile.events()) < 8 * 64 * 2100 < 8 * 64 * 10_000


def test_negative_cosine_is_a_squared_distance_on_the_sphere() -> None:
    a, b = wide(5, 4), wide(5, 4, 1)
    far = (a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)).square().sum(1).mean()
    assert negative_cosine(a, b).item() == pytest.approx(far.item())
    assert negative_cosine(a, 3 * a).item() == pytest.approx(0, abs=1e-12)


def test_losses_are_computed_in_float32_at_least() -> None:
    half = torch.randn(32, 16, generator=Generator().manual_seed(0)).bfloat16()
    for loss in (nt_xent(half, half.roll(1, 0), 0.01), info_nce(half, half, half, 0.07), negative_cosine(half, half)):
        assert loss.dtype == torch.float32
        assert loss.isfinite()
