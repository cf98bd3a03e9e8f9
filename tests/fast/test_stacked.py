"""All tasks at once: Conv4 under the weights of many tasks, against the loop written out by hand and one by one."""

from functools import partial
from typing import Any

import pytest
import torch
from inner_loops import (
    CASES,
    CHANGES,
    WAYS,
    WHOLE,
    KnownGradientContract,
    PathContract,
    gradients,
    learner,
    same,
    tasks_of,
)
from torch.nn import functional

from metarep.errors import MetarepError
from metarep.fast import many_tasks, stacked
from metarep.learners.inner_loop import InnerLoop, Task, meta_loss


class TestStacked(PathContract, KnownGradientContract):
    @pytest.fixture
    def path(self) -> str:
        return "stacked"


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_conv4_is_refused(change: str) -> None:
    made = learner()
    CHANGES[change](made.encoder.body[2])
    with pytest.raises(MetarepError, match="unchanged Conv4"):
        meta_loss(made.start, InnerLoop(2, made.adapted), tasks_of(n=2), WAYS, "stacked")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("case", CASES, ids=[f"{c[0]} order {c[1]} {c[2] or ''}" for c in CASES])
def test_a_gpu_gives_the_same_gradient_and_again_when_it_is_replayed(
    case: tuple[dict[str, Any], int, Any], n: int
) -> None:
    """The first time it is computed, the second time recorded, the third time replayed."""
    settings, order, weights = case
    made = learner(**settings)
    there = learner(**settings).cuda()
    inner = InnerLoop(made.steps, made.adapted, order, weights)
    for seed in range(3):
        with torch.no_grad():
            for name, value in made.named_parameters():
                there.get_parameter(name).copy_(value.add_(0.01 * seed))
        tasks = tasks_of(seed, n=n)
        want = meta_loss(made.start, inner, tasks, WAYS, "plain")
        got = meta_loss(there.start, inner, Task(*(part.cuda() for part in tasks)), WAYS)
        torch.testing.assert_close(got.cpu(), want, rtol=1e-9, atol=1e-9)
        found = {name: gradient.cpu() for name, gradient in gradients(got, there).items()}
        same(found, gradients(want, made))
        for statistic, other in zip(made.buffers(), there.buffers(), strict=True):
            torch.testing.assert_close(statistic, other.cpu())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("head", ["rows", "prototype"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gpu_gives_nearly_the_same_gradient_in_lower_precision(n: int, head: str, precision: str) -> None:
    made, there = (learner(width=64, dtype=torch.float32, head=head) for _ in range(2))
    there, tasks = there.cuda(), tasks_of(n=n, queries=10, dtype=torch.float32)
    there.encoder.precision = precision
    exact_loss = meta_loss(made.start, InnerLoop(2, made.adapted), tasks, WAYS, "exact")
    exact = torch.cat([g.flatten() for g in gradients(exact_loss, made).values()])
    for call in range(3):
        loss = meta_loss(there.start, InnerLoop(2, made.adapted), Task(*(part.cuda() for part in tasks)), WAYS)
        rounded = torch.cat([g.flatten().cpu() for g in gradients(loss, there).values()])
        off, cosine = loss.item() / exact_loss.item() - 1, functional.cosine_similarity(exact, rounded, dim=0).item()
        assert abs(off) < 0.01, (call, off, cosine)
        assert cosine > 0.999, (call, off, cosine)


@pytest.mark.parametrize("kind", list(WHOLE))
def test_tasks_are_solved_one_by_one_as_all_at_once_on_an_accelerator(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, tasks = learner(**WHOLE[kind]).eval(), tasks_of()
    alone = made.adapt(tasks.support, tasks.support_y, WAYS)
    logits = made.logits(alone, tasks.query)
    at_once = partial(many_tasks.many_tasks, always=True)
    monkeypatch.setattr("metarep.machine.faster.many_tasks", at_once)
    monkeypatch.setattr(stacked, "PORTION", 1)
    together = made.adapt(tasks.support, tasks.support_y, WAYS)
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(made.logits(together, tasks.query), logits)
