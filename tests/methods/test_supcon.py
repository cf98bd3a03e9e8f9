"""SupCon: its loss against loops, its bridge to NT-Xent, and the batches that it eats."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from contrasting import make, wide
from torch import Generator, Tensor

from metarep.data.augment import preset
from metarep.data.batch import BatchShape, LabelledViewBatch
from metarep.data.batches import draw_batch
from metarep.data.split import Split
from metarep.encoders import Encoder
from metarep.errors import MetarepError
from metarep.experiments.job import Job, train_settings
from metarep.experiments.pseudo_labels import instances
from metarep.methods.contrastive import nt_xent, sup_con

Drawings = tuple[Split, Split]
Make = Callable[..., Encoder]
LABELS = torch.tensor([7, 0, 7, -3, 0, 7, 12])  # any numbers, in any order; two classes have one image


def slow_sup_con(first: Tensor, second: Tensor, labels: list[int], temperature: float) -> Tensor:
    """The sum over views of equation 2 of the paper (L_out), one pair at a time; divided by the number of views."""
    rows = [row / row.square().sum().sqrt() for row in (*first, *second)]
    classes = labels * 2
    total = torch.zeros((), dtype=torch.float64)
    for i, row in enumerate(rows):
        others = [k for k in range(len(rows)) if k != i]
        below = torch.stack([(row @ rows[k] / temperature).exp() for k in others]).sum()
        positives = [k for k in others if classes[k] == classes[i]]
        for p in positives:
            total = total - ((row @ rows[p] / temperature).exp() / below).log() / len(positives)
    return total / len(rows)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_the_loss_and_its_gradient_are_the_papers(temperature: float, chunk: int) -> None:
    first, second = wide(7, 5).requires_grad_(), wide(7, 5, 1).requires_grad_()
    expected = slow_sup_con(first, second, LABELS.tolist(), temperature)
    loss = sup_con(first, second, LABELS, temperature, chunk=chunk)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    wanted = torch.autograd.grad(expected, (first, second))
    for one, other in zip(torch.autograd.grad(loss, (first, second)), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("chunk", [3, 100])
def test_it_is_nt_xent_where_every_image_is_a_class_of_its_own(chunk: int) -> None:
    first, second = wide(9, 4).requires_grad_(), wide(9, 4, 1).requires_grad_()
    losses = nt_xent(first, second, 0.2), sup_con(first, second, torch.arange(9).flip(0), 0.2, chunk=chunk)
    results = [(loss, *torch.autograd.grad(loss, (first, second))) for loss in losses]
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_it_reaches_its_minimum_where_a_class_is_a_point() -> None:
    """And not where only the views of an image agree, which is the minimum of NT-Xent."""
    points, labels = torch.eye(3).repeat_interleave(2, 0), torch.arange(3).repeat_interleave(2)
    lowest = math.log(3 * math.exp(1 / 0.3) + 8) - 1 / 0.3
    assert sup_con(points, points, labels, 0.3).item() == pytest.approx(lowest, rel=1e-6)
    assert sup_con(torch.eye(6), torch.eye(6), labels, 0.3) > lowest + 1
    half = torch.randn(32, 16, generator=Generator().manual_seed(0)).bfloat16()
    loss = sup_con(half, half.roll(1, 0), torch.arange(32) // 4, 0.01)
    assert loss.dtype == torch.float32
    assert loss.isfinite()


@pytest.mark.parametrize("shots", [1, 4])
def test_a_step_compares_two_views_of_each_labelled_image(shots: int, drawings: Drawings, small_encoder: Make) -> None:
    split, shape = drawings[0], BatchShape(ways=6, shots=shots)
    batch = draw_batch(LabelledViewBatch, split.bank, split.labels, shape, preset("views-drawings"), Generator())
    assert isinstance(batch, LabelledViewBatch)
    assert len(batch.images.flatten(1).unique(dim=0)) == len(batch.second.flatten(1).unique(dim=0)) == 6 * shots
    assert not torch.equal(batch.images, batch.second)
    assert batch.labels.tolist() == [i // shots for i in range(6 * shots)]
    method = make("supcon", small_encoder()).double()
    batch = replace(batch, images=batch.images.double(), second=batch.second.double())
    first, second = method.projector(method.learner.embed(torch.cat([batch.images, batch.second]))).chunk(2)
    expected = slow_sup_con(first, second, batch.labels.tolist(), 0.1)
    loss = method.step(batch, progress=0.0, generator=Generator()).loss
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)


def test_the_command_line_picks_views_and_refuses_what_shows_none(drawings: Drawings) -> None:
    split = drawings[0]
    settings = train_settings(Job("supcon"), split)
    assert (settings.augment, settings.ways, settings.shots, settings.validation_shots) == ("views-drawings", 40, 2, 1)
    for labels in (split.labels, instances(len(split.bank))):
        with pytest.raises(MetarepError, match=r"two views of an image are the same without augmentation"):
            draw_batch(LabelledViewBatch, split.bank, labels, BatchShape(ways=6, shots=2), None, Generator())
