"""Tests of the inner loop: every path against a hand-written loop in float64, and what evaluation may depend on."""

from typing import Any

import pytest
import torch
from inner_loops import (
    WAYS,
    WHOLE,
    KnownGradientContract,
    PathContract,
    gradients,
    learner,
    same,
    solved,
    tasks_of,
)
from thinning import few
from torch import Generator
from torch.nn import functional

from metarep.learners.inner_loop import InnerLoop, Task, meta_loss
from metarep.methods.maml import step_weights


class TestPaths(PathContract):
    @pytest.fixture(params=["plain", "exact", "mapped"])
    def path(self, request: pytest.FixtureRequest) -> str:
        return request.param


class TestKnownGradient(KnownGradientContract):
    @pytest.fixture
    def path(self) -> str:
        return "exact"


@pytest.mark.slow
def test_the_gradient_agrees_with_finite_differences() -> None:
    """Against finite differences along a random direction of everything that is learned."""
    made, tasks = learner(rates="layer", head="prototype"), tasks_of()
    inner = InnerLoop(2, made.adapted)
    parameters = list(made.parameters())
    g = Generator().manual_seed(1)
    direction = [torch.randn(p.shape, generator=g, dtype=p.dtype) for p in parameters]
    meta_loss(made.start, inner, tasks, WAYS).backward()
    derivative = sum((p.grad * d).sum() for p, d in zip(parameters, direction, strict=True))
    ends, eps = [], 1e-7  # so small that hardly any maximum or kink is crossed
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(d, alpha=sign * eps)
        ends.append(meta_loss(made.start, inner, tasks, WAYS).detach())
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(d, alpha=-sign * eps)
    torch.testing.assert_close(derivative, (ends[0] - ends[1]) / (2 * eps), rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.getstate", tuple)  # type checkers draw from it, and the body would be taken to draw
    made, tasks = learner(dtype=torch.float32), tasks_of(n=5, dtype=torch.float32)
    inner, results = InnerLoop(2, made.adapted), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            results.append(gradients(meta_loss(made.start, inner, tasks, WAYS, "exact"), made))
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(1)
    same(*results, tolerance=0)


def test_first_order_keeps_no_graph_and_its_memory_does_not_grow_with_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What steps keep for the second order: nothing, for 2 and for 12 steps."""
    from metarep.learners.inner_loop import exact

    def alive(steps: int, order: int) -> int:
        counts: list[int] = []
        carry = exact._carry_back

        def watched(*arguments: Any) -> Any:
            step_gradients = arguments[2]
            assert not any(part.requires_grad for one in step_gradients for part in one.gradient)
            counts.append(sum(one.hessian_vector_product is not None for one in step_gradients))
            return carry(*arguments)

        monkeypatch.setattr(exact, "_carry_back", watched)
        made = learner(steps=steps)
        meta_loss(made.start, InnerLoop(steps, made.adapted, order), tasks_of(n=1), WAYS, "exact")
        monkeypatch.setattr(exact, "_carry_back", carry)
        return counts[0]

    assert alive(2, 1) == alive(12, 1) == 0
    assert alive(12, 2) > alive(2, 2) > 0


@pytest.mark.parametrize("kind", few(WHOLE, 2))
def test_a_query_never_sees_the_others(kind: str) -> None:
    made, tasks = learner(**WHOLE[kind]).eval(), tasks_of()
    whole = solved(made, tasks)
    torch.testing.assert_close(solved(made, tasks._replace(query=tasks.query.flip(1))).flip(1), whole)
    torch.testing.assert_close(solved(made, tasks._replace(query=tasks.query[:, :1])), whole[:, :1])
    crowd = torch.cat([tasks.query[:, :1], 50 * tasks.query[:, 1:]], 1)
    torch.testing.assert_close(solved(made, tasks._replace(query=crowd))[:, :1], whole[:, :1])
    assert made.protocol == "inductive"


def test_transductive_queries_do_see_each_other_and_it_says_so() -> None:
    made, tasks = learner(normalisation="transductive").eval(), tasks_of()
    assert made.protocol == "transductive"
    alone = solved(made, tasks._replace(query=tasks.query[:, :2]))
    assert not torch.allclose(alone, solved(made, tasks)[:, :2], atol=1e-3)


@pytest.mark.parametrize("kind", list(WHOLE))
def test_tasks_are_solved_one_by_one_as_in_a_batch_and_leave_nothing_behind(kind: str) -> None:
    made, tasks = learner(**WHOLE[kind]).eval(), tasks_of()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    whole = solved(made, tasks)
    for t in range(3):
        torch.testing.assert_close(solved(made, Task(*(part[t : t + 1] for part in tasks))), whole[t : t + 1])
    state = made.adapt(tasks.support, tasks.support_y, WAYS)
    assert not any(tensor.requires_grad for tensor in state.values())
    assert {len(tensor) for tensor in state.values()} == {3}
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())


def test_what_is_trained_is_what_is_deployed() -> None:
    """The loss that training descends is the cross-entropy of the logits that evaluation gets."""
    made, tasks = learner(), tasks_of()
    trained = made.task_loss(*tasks, WAYS)
    deployed = functional.cross_entropy(solved(made, tasks).mT, tasks.query_y)
    torch.testing.assert_close(trained.detach(), deployed)


def test_the_last_rate_repeats() -> None:
    rates = learner(rates="layer").rates.table(5)
    assert [row[0].item() for row in rates[1:]] == [rates[1][0].item()] * 4
    assert rates[0][0].item() != rates[1][0].item()


def test_multi_step_weights_sum_to_one_and_end_on_the_last() -> None:
    for progress in (0.0, 0.3, 0.99):
        weights = step_weights(5, progress)
        assert weights is not None
        assert sum(weights) == pytest.approx(1)
        assert weights[-1] >= max(weights) - 1e-9
    assert step_weights(5, 0.0) == pytest.approx([0.2] * 5)
