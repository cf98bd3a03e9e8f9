"""Learners: one contract for all of them, and each against a slow or a well-known implementation."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from task_rows import DIM, UNEVEN, pixels, rows_of, solve
from torch import Generator, Tensor, nn

from metarep.errors import MetarepError
from metarep.learners import (
    BDCSPN,
    LEARNERS,
    AugmentedLinear,
    AveragedPrototypes,
    GradientDescent,
    Learner,
    Linear,
    Neighbours,
    Pairwise,
    Prototypes,
    SimpleShot,
)

Make = Callable[[], Learner]


def pairwise() -> Pairwise:
    learner = Pairwise(pixels())
    nn.init.normal_(learner.weight, generator=Generator().manual_seed(0))
    nn.init.constant_(learner.bias, 0.3)
    return learner


class OfOneView(AugmentedLinear):
    """Takes rows without the axis of views, as the other learners do; the second view of a row is near it."""

    def prepare(self, x: Tensor) -> Tensor:
        return self.features_of(super().prepare(x))

    def adapt(self, support: Tensor, labels: Tensor, ways: int) -> dict[str, Tensor]:
        return super().adapt(torch.stack([support, 1.1 * support + 0.1], 2), labels, ways)

    def logits(self, state: dict[str, Tensor], query: Tensor) -> Tensor:
        return super().logits(state, torch.stack([query, query - 0.1], 2))


KINDS: dict[str, Make] = {
    **{name: lambda learner=learner: learner(pixels()) for name, learner in LEARNERS.items()},
    "augmented": lambda: OfOneView(pixels()),
    "augmented, average": lambda: OfOneView(pixels(), average=True, power=0.7, centre=True, balance=True),
    "bd-cspn, confident": lambda: BDCSPN(pixels(), confident=2, epsilon=10.0),
    "simpleshot, power": lambda: SimpleShot(pixels(), "euclidean", power=0.5),
    "prototypes, power": lambda: Prototypes(pixels(), power=0.5, learn_temperature=True),
    "descent, cosine": lambda: GradientDescent(pixels(), head="cosine", inner_lr=0.1, steps=20),
    "prototypes, cosine": lambda: Prototypes(pixels(), "cosine", temperature=0.1),
    "neighbours, k=3": lambda: Neighbours(pixels(), k=3),
    "neighbours, k=100, euclidean": lambda: Neighbours(pixels(), k=100, metric="euclidean", temperature=2.0),
    "ridge": lambda: Linear(pixels(), "ridge"),
    "ridge, as is": lambda: Linear(pixels(), "ridge", strength=0.3, normalise=False),
    "logistic, as is": lambda: Linear(pixels(), "logistic", strength=0.3, normalise=False),
    "pairwise": pairwise,
}


@pytest.fixture(params=list(KINDS))
def learner(request: pytest.FixtureRequest) -> Learner:
    return KINDS[request.param]().double()


def close(got: Tensor, want: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


def test_a_batch_of_tasks_is_the_tasks_one_by_one(learner: Learner) -> None:
    support, y, query = rows_of()
    whole = solve(learner, support, y, query)
    assert whole.shape == (4, 7, 3)
    for task in range(4):
        one = slice(task, task + 1)
        close(solve(learner, support[one], y[one], query[one]), whole[one], 1e-3)
        assert torch.equal(solve(learner, support[one], y[one], query[one]).argmax(-1), whole[one].argmax(-1))


def test_permuting_class_numbers_permutes_logits(learner: Learner) -> None:
    support, y, query = rows_of()
    renamed = torch.tensor([2, 0, 1])
    close(solve(learner, support, renamed[y], query)[..., renamed], solve(learner, support, y, query))


def test_the_order_of_the_support_changes_nothing(learner: Learner) -> None:
    support, y, query = rows_of()
    order = torch.randperm(y.shape[1], generator=Generator().manual_seed(1))
    close(solve(learner, support[:, order], y[:, order], query), solve(learner, support, y, query))


def test_a_query_does_not_depend_on_the_others(learner: Learner) -> None:
    support, y, query = rows_of()
    whole = solve(learner, support, y, query)
    close(solve(learner, support, y, query.flip(1)).flip(1), whole)
    if isinstance(learner, BDCSPN):  # it is transductive, and says so
        assert learner.protocol == "transductive"
        assert not torch.allclose(solve(learner, support, y, query[:, :3]), whole[:, :3], atol=1e-3)
        return
    for i in range(query.shape[1]):
        close(solve(learner, support, y, query[:, i : i + 1]), whole[:, i : i + 1])
    crowd = torch.cat([query[:, :1], 1e3 * query[:, 1:]], dim=1)
    close(solve(learner, support, y, crowd)[:, :1], whole[:, :1])
    assert learner.protocol == "inductive"


def test_the_state_has_tasks_first_and_can_be_cut(learner: Learner) -> None:
    support, y, query = rows_of()
    state = learner.adapt(support, y, 3)
    assert {len(tensor) for tensor in state.values()} == {4}
    part = {name: tensor[1:3] for name, tensor in state.items()}
    close(learner.logits(part, query[1:3]), learner.logits(state, query)[1:3])


def test_queries_that_are_support_images_get_their_class(learner: Learner) -> None:
    """Scores go up: a sign error anywhere turns this around."""
    support, y, _ = rows_of()
    if isinstance(learner, Pairwise):
        nn.init.constant_(learner.weight, -5)
    right = (solve(learner, support, y, support).argmax(-1) == y).double().mean()
    assert right > 0.8


def test_one_way_one_shot_and_many_ways_work(learner: Learner) -> None:
    for labels, ways in (([0], 1), ([0, 1], 2), (list(range(30)), 30)):
        logits = solve(learner, *rows_of(0, 2, labels, ways), ways=ways)
        assert logits.shape == (2, 7, ways)
        assert logits.isfinite().all()


def test_a_class_without_support_is_scored_or_named_in_an_error(learner: Learner) -> None:
    support, y, query = rows_of()
    if isinstance(learner, GradientDescent):
        with pytest.raises(MetarepError, match="task 0 has no support image of class 3"):
            solve(learner, support, y, query, ways=4)
        return
    assert solve(learner, support, y, query, ways=4).isfinite().all()


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_equal_support_rows_give_finite_logits(learner: Learner, fill: float) -> None:
    """Blank images, or an encoder that has collapsed: no NaN, in the loss or its gradient."""
    support, y, query = rows_of()
    flat = torch.full_like(support, fill).requires_grad_()
    loss = learner.task_loss(flat, y, torch.full_like(query, fill), y[:, :7], 3)
    loss.backward()
    assert loss.isfinite()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


def test_the_gradient_flows_through_adapt(learner: Learner) -> None:
    support, y, query = rows_of()
    support.requires_grad_()
    query.requires_grad_()
    learner.task_loss(support, y, query, y[:, :7], 3).backward()
    assert support.grad is not None
    assert query.grad is not None
    if isinstance(learner, Neighbours) and learner.k == 1:
        return  # a single vote has weight one, whatever its distance
    assert (support.grad.abs().sum(-1) > 0).any(1).all()
    assert (query.grad.abs().sum(-1) > 0).any(1).all()


@pytest.mark.parametrize("kind", ["prototypes", "prototypes, cosine", "ridge, as is", "linear", "pairwise"])
def test_the_gradient_is_right(kind: str) -> None:
    learner, (support, y, query) = KINDS[kind]().double(), rows_of(tasks=1, labels=[0, 1, 1, 2, 0])
    if kind == "linear":  # its steps stop at a tolerance, so differences need larger ones
        check: dict[str, Any] = {"eps": 1e-2, "atol": 1e-3, "rtol": 1e-2}
    else:
        check = {}
    assert torch.autograd.gradcheck(
        lambda rows: learner.task_loss(rows, y, query, torch.tensor([[0, 1, 2, 0, 1, 2, 0]]), 3),
        support.requires_grad_(),
        **check,
    )


def slow_mean(rows: list[Tensor]) -> Tensor:
    return sum(rows[1:], rows[0]) / len(rows)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_prototypes_by_loop(metric: Any) -> None:
    support, y, query = rows_of()
    got = solve(Prototypes(pixels(), metric, temperature=0.5), support, y, query)
    for task in range(4):
        for way in range(3):
            mine = [support[task, i] for i in range(len(UNEVEN)) if y[task, i] == way]
            if metric == "cosine":
                mine = [row / row.norm() for row in mine]
            prototype = slow_mean(mine)
            for q in range(7):
                row = query[task, q]
                if metric == "cosine":
                    score = float(row @ prototype / (row.norm() * prototype.norm()))
                else:
                    score = -sum((a - b) ** 2 for a, b in zip(row.tolist(), prototype.tolist(), strict=True))
                assert got[task, q, way].item() == pytest.approx(score / 0.5)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_nearest_neighbour_is_sklearns(metric: Any) -> None:
    support, y, query = rows_of()
    guess = solve(Neighbours(pixels(), k=1, metric=metric), support, y, query).argmax(-1)
    for task in range(4):
        oracle = KNeighborsClassifier(1, metric=metric).fit(support[task].numpy(), y[task].numpy())
        assert guess[task].tolist() == oracle.predict(query[task].numpy()).tolist()


@pytest.mark.parametrize("k", [2, 3, 5, 9, 50])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_neighbours_vote_by_loop(metric: Any, k: int) -> None:
    support, y, query = rows_of()
    got = solve(Neighbours(pixels(), k, metric, temperature=0.7), support, y, query)
    for task in range(4):
        for q in range(7):
            row, near = query[task, q], []
            for i in range(len(UNEVEN)):
                other = support[task, i]
                cosine = float(row @ other / (row.norm() * other.norm()))
                near.append((cosine if metric == "cosine" else -float((row - other).square().sum()), int(y[task, i])))
            votes = [0.0] * 3
            for score, way in sorted(near, reverse=True)[:k]:
                votes[way] += math.exp(score / 0.7)
            want = [math.log(max(vote / sum(votes), 1e-12)) for vote in votes]
            assert got[task, q].tolist() == pytest.approx(want)


def test_equally_near_neighbours_share_the_vote() -> None:
    """One image under two classes, k = 1: taking either would make the order of the support matter."""
    support = torch.ones(1, 3, DIM, dtype=torch.float64)
    support[0, 2] = -1
    shares = solve(Neighbours(pixels(), k=1), support, torch.tensor([[0, 1, 2]]), support[:, :1]).exp()
    assert shares[0, 0].tolist() == pytest.approx([0.5, 0.5, 0], abs=1e-9)


def test_pairwise_by_loop() -> None:
    support, y, query = rows_of()
    learner = pairwise().double()
    got = solve(learner, support, y, query)

    def score(row: Tensor, other: Tensor) -> float:
        apart = [abs(a - b) for a, b in zip(row.sigmoid().tolist(), other.sigmoid().tolist(), strict=True)]
        return sum(w * a for w, a in zip(learner.weight.tolist(), apart, strict=True)) + learner.bias.item()

    for task in range(4):
        for q in range(7):
            for way in range(3):
                mine = [support[task, i] for i in range(len(UNEVEN)) if y[task, i] == way]
                want = sum(score(query[task, q], row) for row in mine) / len(mine)
                assert got[task, q, way].item() == pytest.approx(want)


def test_prepare_is_the_representation_and_embed_too(learner: Learner) -> None:
    x = torch.rand(5, 1, 2, 3, dtype=torch.float64, generator=Generator().manual_seed(0))
    assert torch.equal(learner.prepare(x), learner.embed(x))
    if not isinstance(learner, AveragedPrototypes):  # whose representation is the mean over copies
        assert torch.equal(learner.embed(x), x.flatten(1))
