"""Losses against slow oracles: plain Python loops in float64 that follow the papers' sums, term by term."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from metarep.learners.class_means import class_means
from metarep.learners.distances import distances, squared_distances, task_cross_entropy
from metarep.methods.losses import (
    mean_where,
    pair_loss,
    same_class,
    triplet_loss,
)

EPS = 1e-6  # what ``distances`` adds under the root
BATCHES = {
    "even": [0, 0, 1, 1, 2, 2, 3, 3],
    "uneven": [2, 0, 1, 1, 1, 0, 1, 2, 2],
    "with a class of one": [0, 1, 1, 2, 2, 2, 3],
}


@pytest.fixture(params=list(BATCHES))
def batch(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    labels = torch.tensor(BATCHES[request.param])
    g = Generator().manual_seed(len(labels))
    return torch.randn(len(labels), 3, generator=g, dtype=torch.float64) * 0.6, labels


def slow_square(x: Tensor, y: Tensor) -> float:
    return sum((a - b) ** 2 for a, b in zip(x.tolist(), y.tolist(), strict=True))


def slow_distance(x: Tensor, y: Tensor) -> float:
    return math.sqrt(slow_square(x, y) + EPS)


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def slow_pair_loss(x: Tensor, y: list[int], margin: float, negatives: str) -> tuple[float, float]:
    same, different, hardest = [], [], []
    for i in range(len(x)):
        mine = []
        for j in range(len(x)):
            d = slow_distance(x[i], x[j])
            if i != j and y[i] == y[j]:
                same.append(d**2 / 2)
            elif y[i] != y[j]:
                mine.append(max(0.0, margin - d) ** 2 / 2)
        different += mine
        hardest.append(max(mine))
    near = [value for value in different if value > 0]
    counted = {"all": different, "active": near, "hardest": hardest}[negatives]
    return (mean(same) + mean(counted)) / 2, len(near) / len(different)


def slow_triplet_loss(x: Tensor, y: list[int], margin: float | None, mining: str, squared: bool) -> tuple[float, float]:
    gap = slow_square if squared else slow_distance
    values = []

    def add(positive: float, negative: float) -> None:
        apart = positive - negative
        values.append(math.log1p(math.exp(apart)) if margin is None else max(0.0, apart + margin))

    for a in range(len(x)):
        positives = [gap(x[a], x[p]) for p in range(len(x)) if p != a and y[p] == y[a]]
        negatives = [gap(x[a], x[n]) for n in range(len(x)) if y[n] != y[a]]
        if not positives or not negatives:
            continue
        if mining == "batch-hard":
            add(max(positives), min(negatives))
        for positive in positives:
            if mining == "batch-all":
                for negative in negatives:
                    add(positive, negative)
            elif mining == "semi-hard":
                farther = [negative for negative in negatives if negative > positive]
                add(positive, min(farther) if farther else max(negatives))
    unsatisfied = [value for value in values if value > 0]
    loss = mean(unsatisfied) if mining == "batch-all" else mean(values)
    return loss, len(unsatisfied) / len(values)


def test_distances_by_loop() -> None:
    g = Generator().manual_seed(0)
    x, y = (torch.randn(2, 3, n, 4, generator=g, dtype=torch.float64) for n in (5, 6))
    squares, plain = squared_distances(x, y), distances(x, y)
    for s in range(2):
        for t in range(3):
            for i in range(5):
                for j in range(6):
                    assert squares[s, t, i, j].item() == pytest.approx(slow_square(x[s, t, i], y[s, t, j]))
                    assert plain[s, t, i, j].item() == pytest.approx(slow_distance(x[s, t, i], y[s, t, j]))


def test_distances_are_never_negative_and_nearly_right_in_float32() -> None:
    """On the unit sphere, where the metric family compares, the product's lost digits stay below one in a thousand."""
    g = Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(200, 64, generator=g), dim=-1)
    near = torch.nn.functional.normalize(x + 1e-3 * torch.randn(200, 64, generator=g), dim=-1)
    got, true = squared_distances(x, near), torch.cdist(x.double(), near.double()).square()
    assert got.min() >= 0
    assert (got - true).abs().max() < 1e-6
    assert distances(x, near).dtype == torch.float32


@pytest.mark.parametrize("margin", [1.0, 1.5])
@pytest.mark.parametrize("negatives", ["all", "active", "hardest"])
def test_pair_loss_by_loop(batch: tuple[Tensor, Tensor], margin: float, negatives: str) -> None:
    x, labels = batch
    loss, active = pair_loss(x, labels, margin, negatives)
    want, share = slow_pair_loss(x, labels.tolist(), margin, negatives)
    assert loss.item() == pytest.approx(want, rel=1e-9)
    assert active.item() == pytest.approx(share)
    assert 0 < share < 1, "the oracle's batch should have pairs on both sides of the margin"


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("margin", [0.3, None])
@pytest.mark.parametrize("mining", ["batch-all", "semi-hard", "batch-hard"])
def test_triplet_loss_by_loop(batch: tuple[Tensor, Tensor], mining: str, margin: float | None, squared: bool) -> None:
    x, labels = batch
    loss, active = triplet_loss(x, labels, margin=margin, mining=mining, squared=squared)
    want, share = slow_triplet_loss(x, labels.tolist(), margin, mining, squared)
    assert loss.item() == pytest.approx(want, rel=1e-9)
    assert active.item() == pytest.approx(share)


def test_semi_hard_is_what_masks_over_all_triplets_give_and_keeps_none() -> None:
    """The plain formulation costs n**3; the same values, and gradients but for the last digit, without it."""
    labels = torch.arange(12).repeat_interleave(4)
    x = torch.randn(48, 6, generator=Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    kept: list[int] = []

    def pack(value: Tensor) -> Tensor:
        kept.append(value.numel())
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        loss, _ = triplet_loss(x, labels, margin=0.5, mining="semi-hard", squared=False)
    assert max(kept) <= 48 * 48
    positive, negative = same_class(labels)
    gap = distances(x, x)
    beyond = negative.unsqueeze(1) & (gap.unsqueeze(1) > gap.unsqueeze(2))
    assert beyond.any(2)[positive].float().mean() < 1, "some positives should have no negative beyond them"
    nearest = gap.unsqueeze(1).masked_fill(~beyond, math.inf).amin(2)
    chosen = torch.where(beyond.any(2), nearest, gap.masked_fill(~negative, 0).amax(1, keepdim=True))
    want = mean_where((gap - chosen + 0.5).clamp_min(0), positive)
    assert torch.equal(loss, want)
    (got,), (plain,) = torch.autograd.grad(loss, x), torch.autograd.grad(want, x)
    assert torch.allclose(got, plain, rtol=0, atol=1e-15)


def test_semi_hard_falls_back_to_the_farthest_negative() -> None:
    x = torch.tensor([[0.0], [2.0], [0.5], [1.0]], dtype=torch.float64)
    loss, _ = triplet_loss(x, torch.tensor([0, 0, 1, 1]), margin=0.2, mining="semi-hard", squared=True)
    want, _ = slow_triplet_loss(x, [0, 0, 1, 1], 0.2, "semi-hard", True)
    # Anchor 0, positive at 4: both negatives are nearer (.25 and 1), so the farther of them counts: 4 - 1 + .2 = 3.2.
    assert loss.item() == pytest.approx(want)
    assert want == pytest.approx(mean([3.2, 4 - 2.25 + 0.2, 0.25 - 2.25 + 0.2 + 1.8, 0.25 - 1 + 0.2 + 0.55]))


def test_class_means_by_loop_with_uneven_shots() -> None:
    g = Generator().manual_seed(0)
    rows, labels = torch.randn(2, 6, 3, generator=g, dtype=torch.float64), torch.tensor([[0, 2, 2, 0, 0, 1]] * 2)
    means = class_means(rows, labels, 4)
    for task in range(2):
        for way in range(4):
            for dim in range(3):
                mine = [rows[task, i, dim].item() for i in range(6) if labels[task, i] == way]
                assert means[task, way, dim].item() == pytest.approx(mean(mine))


def test_task_cross_entropy_is_the_mean_over_queries_then_tasks() -> None:
    g = Generator().manual_seed(0)
    logits, y = torch.randn(3, 4, 5, generator=g, dtype=torch.float64), torch.randint(5, (3, 4), generator=g)
    slow = [
        mean([math.log(sum(math.exp(v) for v in row)) - row[k] for row, k in zip(rows, known, strict=True)])
        for rows, known in zip(logits.tolist(), y.tolist(), strict=True)
    ]
    assert task_cross_entropy(logits, y).item() == pytest.approx(mean(slow))


def test_same_class_leaves_out_the_diagonal() -> None:
    positive, negative = same_class(torch.tensor([0, 1, 0]))
    assert positive.nonzero().tolist() == [[0, 2], [2, 0]]
    assert negative.nonzero().tolist() == [[0, 1], [1, 0], [1, 2], [2, 1]]


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "contrastive": lambda x, y: pair_loss(x, y, 1.0)[0],
    "contrastive, active": lambda x, y: pair_loss(x, y, 1.0, "active")[0],
    "contrastive, hardest": lambda x, y: pair_loss(x, y, 1.0, "hardest")[0],
    **{
        f"{mining}, margin {margin}, squared {squared}": (
            lambda x, y, mining=mining, margin=margin, squared=squared: triplet_loss(
                x, y, margin=margin, mining=mining, squared=squared
            )[0]
        )
        for mining in ("batch-all", "semi-hard", "batch-hard")
        for margin in (0.3, None)
        for squared in (False, True)
    },
}


@pytest.mark.parametrize("name", list(LOSSES))
def test_gradients_are_right(name: str, batch: tuple[Tensor, Tensor]) -> None:
    x, labels = batch
    assert torch.autograd.gradcheck(lambda rows: LOSSES[name](rows, labels), x.clone().requires_grad_())


@pytest.mark.parametrize("negatives", ["all", "active", "hardest"])
def test_pairs_have_a_second_derivative(negatives: str, batch: tuple[Tensor, Tensor]) -> None:
    x, labels = batch
    weight = torch.eye(x.shape[1], dtype=x.dtype).requires_grad_()
    loss = lambda weight: pair_loss(x @ weight, labels, 1.5, negatives)[0]  # noqa: E731
    assert torch.autograd.gradgradcheck(loss, weight)
    torch.testing.assert_close(torch.func.grad(loss)(weight.detach()), torch.autograd.grad(loss(weight), weight)[0])
    with torch.autocast("cpu", torch.bfloat16):
        mixed = pair_loss(x.float(), labels, 1.5, negatives)[0]
    assert mixed.item() == pytest.approx(pair_loss(x, labels, 1.5, negatives)[0].item(), rel=1e-5)


@pytest.mark.parametrize("name", list(LOSSES))
@pytest.mark.parametrize("rows", ["all equal", "all zero", "one pair equal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_distance_zero(name: str, rows: str, dtype: torch.dtype) -> None:
    x = torch.randn(6, 4, generator=Generator().manual_seed(0)).to(dtype)
    x = {"all equal": x[:1].repeat(6, 1), "all zero": 0 * x, "one pair equal": torch.cat([x[:5], x[:1]])}[rows]
    x.requires_grad_()
    loss = LOSSES[name](x, torch.tensor([0, 1, 2, 2, 1, 0]))
    loss.backward()
    assert loss.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("name", list(LOSSES))
@pytest.mark.parametrize("y", [[0, 0, 0, 0], [0, 1, 2, 3], [0]], ids=["no negatives", "no positives", "one image"])
def test_batches_without_pairs_have_a_finite_gradient(name: str, y: list[int]) -> None:
    """And without triplets the loss is zero."""
    x = torch.randn(len(y), 4, generator=Generator().manual_seed(0)).requires_grad_()
    loss = LOSSES[name](x, torch.tensor(y))
    loss.backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    if "contrastive" not in name or len(y) == 1:
        assert loss.item() == 0
        assert not x.grad.any()


def test_mean_where_of_nothing_is_zero_with_gradient() -> None:
    x = torch.ones(3, requires_grad=True)
    mean_where(x, torch.zeros(3, dtype=torch.bool)).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 0, 0]
    assert mean_where(torch.tensor([1.0, math.inf, 3.0]), torch.tensor([True, False, True])).item() == 2


def descend(loss: Callable[[Tensor, bool, float], Tensor], same: bool, margin: float) -> tuple[float, float]:
    """Two free points in the plane, half a unit apart: their distance after descent, and the first gradient's norm."""
    points = torch.tensor([[0.0, 0.0], [0.3, 0.4]], dtype=torch.float64, requires_grad=True)
    first = 0.0
    for step in range(800):
        value = loss(points, same, margin)
        (gradient,) = torch.autograd.grad(value, points)
        first = gradient.norm().item() if step == 0 else first
        with torch.no_grad():
            points -= 0.005 * gradient
    return (points[0] - points[1]).norm().item(), first


def contrastive(points: Tensor, same: bool, margin: float) -> Tensor:
    return 2 * pair_loss(points, torch.tensor([0, 0 if same else 1]), margin)[0]


def inverted_contrastive(points: Tensor, same: bool, margin: float) -> Tensor:
    """``max(0, margin - y * d**2)`` with y = 1 for the same class, as it is often printed."""
    return (margin - same * (points[0] - points[1]).square().sum()).clamp_min(0)


@pytest.mark.slow
@pytest.mark.parametrize("margin", [1.0, pytest.param(2.25, marks=pytest.mark.slow)])
def test_the_loss_often_printed_does_the_opposite(margin: float) -> None:
    """``max(0, m - y * d**2)`` with y = 1 for one class: the positive pair flies apart, the negative one is ignored."""
    together, _ = descend(contrastive, True, margin)
    beyond, _ = descend(contrastive, False, margin)
    assert together == pytest.approx(0, abs=1e-3)
    assert beyond == pytest.approx(margin, abs=1e-3)
    apart, _ = descend(inverted_contrastive, True, margin)
    ignored, gradient = descend(inverted_contrastive, False, margin)
    assert apart == pytest.approx(math.sqrt(margin), abs=0.05)
    assert ignored == 0.5
    assert gradient == 0
