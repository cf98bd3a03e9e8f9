"""Tests of Reptile and MAML: their updates against the textbook, and settings that they refuse."""

from typing import Any, Literal

import pytest
import torch
from inner_loops import (
    PLAIN,
    WAYS,
    tasks_of,
)
from torch import Generator, nn
from torch.nn import functional

from metarep.data.batch import BatchShape, TaskBatch
from metarep.data.batches import draw_batch
from metarep.encoders import build_encoder
from metarep.errors import MetarepError
from metarep.learners import GradientDescent
from metarep.methods import MAML, Reptile
from metarep.methods.reptile import reptile_loss


@pytest.mark.parametrize("kind", ["rows", "prototype"])
def test_reptile_is_its_textbook_update(kind: Literal["rows", "prototype"]) -> None:
    """Start plus rate times (mean end - start), the ends by Adam as the paper's code has it, one task after another."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = build_encoder("conv4", PLAIN, width=4)
        made = Reptile(encoder, ways=WAYS, head=kind, inner_steps=3, minibatch=0).double().train()
    tasks, copies, moments = tasks_of(), [], []
    adapter = made.learner
    for support, y in zip(
        torch.cat([tasks.support, tasks.query], 1), torch.cat([tasks.support_y, tasks.query_y], 1), strict=True
    ):
        body = build_encoder("conv4", PLAIN, width=4).double().train()
        body.load_state_dict(adapter.encoder.state_dict())
        head = nn.Linear(4, WAYS).double()
        if kind == "rows":
            head.load_state_dict({"weight": adapter.head.weight, "bias": adapter.head.bias})
        else:
            means = torch.stack([body(support)[y == way].mean(0) for way in range(WAYS)]).detach()
            head.load_state_dict({"weight": 2 * means, "bias": -means.square().sum(1)})
        own = [*body.body.parameters(), *head.parameters()]
        second = [torch.zeros_like(p) for p in own]
        for t in (1, 2, 3):
            gradients = torch.autograd.grad(functional.cross_entropy(head(body(support)), y), own)
            second = [0.999 * s + 0.001 * g**2 for s, g in zip(second, gradients, strict=True)]
            with torch.no_grad():
                for p, s, g in zip(own, second, gradients, strict=True):
                    p -= 1e-3 * (1 - 0.999**t) ** 0.5 * g / (s.sqrt() + 1e-8)
        copies.append([p.detach() for p in own])
        moments.append(second)
    start = [*adapter.encoder.body.parameters(), *adapter.head.parameters()]
    ends = [torch.stack(each).mean(0) for each in zip(*copies, strict=True)]
    want = [
        p.detach() + 0.7 * (end - p.detach()) for p, end in zip(start, ends, strict=False)
    ]  # a head may be the task's
    # Through the method: the same tasks as a batch of its own.
    images = torch.cat([tasks.support, tasks.query], 1)
    from metarep.data.batch import TaskBatch
    from metarep.data.tasks import TaskIndex

    place = torch.arange(images.shape[0] * images.shape[1]).view(images.shape[:2])
    index = TaskIndex(place[:, :6], place[:, 6:], tasks.support_y, tasks.query_y, torch.zeros(3, WAYS).long(), WAYS)
    step = made.step(TaskBatch(images.flatten(0, 1), place.flatten(), index), progress=0.0, generator=Generator())
    optimiser, seen_by = made.optimizer(0.7, 0.0), start[0].detach().clone()
    step.loss.backward()
    optimiser.step()
    for got, wanted in zip(start, want, strict=True):
        torch.testing.assert_close(got.detach(), wanted, rtol=1e-9, atol=1e-12)
    assert not any(adapter.get_buffer(f"second_{i}").any() for i in range(14))
    first = functional.conv2d(images.flatten(0, 1), seen_by, padding=1).unflatten(0, images.shape[:2])
    made.after_step(step.carry, 0.0)
    running = adapter.encoder.body[0][1].running_mean
    torch.testing.assert_close(running, 0.1 * first.mean((0, 1, 3, 4)), msg="running statistics are of the start")
    assert adapter.get_buffer("adam_steps") == 3
    for i, mean in enumerate(torch.stack(part).mean(0) for part in zip(*moments, strict=True)):
        kept = adapter.get_buffer(f"second_{i}")
        torch.testing.assert_close(kept, mean if kept.shape == mean.shape else mean.mean(0, keepdim=True))
        assert kept.any()


def test_the_gradient_of_reptiles_loss_is_its_step() -> None:
    start = [torch.tensor([1.0, 2.0], requires_grad=True)]
    reptile_loss(start, [[torch.tensor([3.0, 3.0])], [torch.tensor([1.0, 5.0])]]).backward()
    assert start[0].grad.tolist() == [-1.0, -2.0]


def test_maml_refuses_what_cannot_be() -> None:
    encoder = build_encoder("conv4", PLAIN, width=4)
    with pytest.raises(MetarepError, match="multi_step is a share of training"):
        MAML(encoder, multi_step=2.0)


def test_maml_trains_under_running_statistics_only_where_there_are_some(drawings: Any, small_encoder: Any) -> None:
    encoder, shape = small_encoder(), BatchShape(ways=WAYS, shots=2, queries=3)
    batch = draw_batch(TaskBatch, drawings[1].bank, drawings[1].labels, shape, None, Generator().manual_seed(0))
    made = MAML(encoder, ways=WAYS, normalisation="running")
    with pytest.raises(MetarepError, match=r"start from a trained one with init=RUN, or take normalisation='support'"):
        made.step(batch, progress=0.0, generator=Generator())
    encoder.body[0][1].running_mean += 0.1
    assert made.step(batch, progress=0.0, generator=Generator()).loss.isfinite()


def test_a_measurement_under_other_statistics_leaves_the_learner_as_it_was(drawings: Any, small_encoder: Any) -> None:
    from metarep.experiments.measurement.measure import Setting, measure_all

    made = GradientDescent(small_encoder(), ways=3, head="rows", scope="all", steps=1)
    cells = [Setting(range(3, 4), range(1, 2), 2, 3, normalisation=n) for n in ("transductive", None, "running")]
    reports = [report for _, report in measure_all(made, drawings[1], cells, references=False)]
    assert [(report.normalisation, report.protocol) for report in reports] == [
        ("transductive", "transductive"),
        ("support", "inductive"),
        ("running", "inductive"),
    ]
    assert reports[1].learner == "descent, 1 step"
