"""Known errors of metric learning, of nearest neighbours and of how both are measured, each as a test."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from contrasting import OWN, make, wide
from torch import Generator, nn
from torch.nn import functional

from metarep.data.batch import LabelledBatch
from metarep.data.split import Split
from metarep.data.tasks import draw_tasks
from metarep.encoders import Encoder, Preprocess
from metarep.experiments.job import Job
from metarep.experiments.measurement.evaluation import evaluate
from metarep.experiments.start import start
from metarep.index import build_index
from metarep.learners import Neighbours, Prototypes
from metarep.learners.distances import distances
from metarep.methods import Siamese, Triplet
from metarep.methods.losses import pair_loss, triplet_loss
from metarep.methods.pairs import same_class

Drawings = tuple[Split, Split]
Make = Callable[..., Encoder]


# Siamese


@pytest.mark.parametrize(("same", "end"), [(True, 0.0), (False, 1.0)])
def test_pairs_of_a_class_are_pushed_apart_and_others_left_alone(same: bool, end: float) -> None:
    points = torch.tensor([[0.0, 0.0], [0.5, 0.0]], requires_grad=True)
    labels = torch.tensor([0, 0 if same else 1])
    first, _ = pair_loss(points, labels, 1.0)
    assert first.item() == pytest.approx(0.125 / 2, abs=1e-5), "halves of squares, as in the paper; half of each kind"
    for _ in range(200):
        (gradient,) = torch.autograd.grad(2 * pair_loss(points, labels, 1.0)[0], points)
        with torch.no_grad():
            points -= 0.1 * gradient
    assert (points[0] - points[1]).norm().item() == pytest.approx(end, abs=1e-3)


def test_the_gradient_of_a_distance_of_zero_is_nan() -> None:
    rows = torch.ones(4, 3, requires_grad=True)
    for loss in (
        pair_loss(rows, torch.tensor([0, 0, 1, 1]), 1.0)[0],
        triplet_loss(rows, torch.tensor([0, 0, 1, 1]), margin=0.2, mining="batch-hard", squared=False)[0],
    ):
        assert torch.autograd.grad(loss, rows)[0].isfinite().all()


@pytest.mark.parametrize("kind", [Siamese, Triplet])
def test_distances_far_from_the_origin_lose_their_digits(kind: Any, small_encoder: Make, drawings: Drawings) -> None:
    """Features of 10 ± 0.01, which are not normalised."""
    far = (10 + 0.01 * torch.randn(40, 64, generator=Generator().manual_seed(0))).requires_grad_()
    method = kind(small_encoder(), normalise=False)
    method.learner.embed = lambda images: images.flatten(1)
    labels = torch.arange(40) // 4
    found = []
    for rows in (far, far.detach().double().requires_grad_()):
        batch = LabelledBatch(rows.view(40, 1, 8, 8), torch.arange(40), labels, labels)
        loss = method.step(batch, progress=0.0, generator=Generator()).loss
        found.append((loss.double(), torch.autograd.grad(loss, rows)[0].double()))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-5)


def test_a_margin_that_is_never_reached_looks_like_any_other() -> None:
    rows, labels = functional.normalize(wide(12, 4), dim=-1), torch.arange(12) // 3
    assert distances(rows, rows).max() <= 2 + 1e-6
    assert pair_loss(rows, labels, 2.5)[1] == 1, "all pairs stay active, which the log shows"


def test_kochs_head_takes_the_logarithm_of_a_probability(small_encoder: Make, drawings: Drawings) -> None:
    method = Siamese(small_encoder(), loss="koch").train()
    with torch.no_grad():
        for parameter in method.learner.parameters():
            parameter.mul_(100)
    labels = torch.arange(12) // 3
    batch = LabelledBatch(drawings[0].bank.images[:12].float() / 255, torch.arange(12), labels, labels)
    assert method.step(batch, progress=0.0, generator=Generator()).loss.isfinite()


# Triplet


@pytest.mark.parametrize("mining", ["batch-all", "semi-hard", "batch-hard"])
def test_a_loss_over_active_triplets_hides_progress_and_collapse(mining: Any) -> None:
    labels, options = torch.arange(8) // 2, {"margin": 0.2, "mining": mining, "squared": True}
    loss, active = triplet_loss(torch.ones(8, 4), labels, **options)
    assert (loss.item(), active.item()) == (pytest.approx(0.2), 1.0)
    apart = torch.eye(4, dtype=torch.float64).repeat_interleave(2, 0)
    assert [value.item() for value in triplet_loss(apart, labels, **options)] == [0, 0], "the share is in the log"
    assert inspect.signature(Triplet).parameters["mining"].default == "semi-hard", (
        "batch-hard from the first step collapses"
    )


@pytest.mark.parametrize("mining", ["batch-all", "semi-hard", "batch-hard"])
def test_a_class_of_one_image_is_an_error_or_its_own_positive(mining: Any) -> None:
    rows = wide(5, 3)
    both = [
        triplet_loss(rows[keep], torch.tensor([0, 0, 1, 1, 2])[keep], margin=0.2, mining=mining, squared=False)
        for keep in (slice(None), slice(0, 4))
    ]
    assert all(loss.isfinite() for loss, _ in both)
    assert not same_class(torch.tensor([0, 0, 2]))[0].diagonal().any()


# Neighbours, and how all of them are measured


@pytest.mark.parametrize("learner", [Prototypes, Neighbours])
def test_only_one_side_of_a_cosine_is_normalised(learner: Any) -> None:
    made = learner(Encoder(nn.Flatten(), Preprocess((1, 4), 1, (0.0,), (1.0,))), metric="cosine")
    support, query, y = wide(6, 4)[None], wide(5, 4, 1)[None], torch.tensor([[0, 0, 0, 1, 1, 1]])
    expected = made.logits(made.adapt(support, y, 2), query)
    scales = torch.tensor([1.0, 9.0, 0.2, 3.0, 5.0, 0.1], dtype=torch.float64)[None, :, None]
    torch.testing.assert_close(made.logits(made.adapt(scales * support, y, 2), 7 * query), expected)


def test_more_neighbours_than_support_images_or_new_class_numbers_fail(drawings: Drawings, small_encoder: Make) -> None:
    tasks = draw_tasks(drawings[1].labels, 5, ways=4, shots=2, queries=3, generator=Generator().manual_seed(0))
    assert tasks.classes.max() > 4
    assert tasks.query_y.max() == 3
    assert evaluate(Neighbours(small_encoder(), k=200), drawings[1].bank, tasks).accuracy > 0


def test_test_images_are_normalised_together_and_each_method_has_its_own_tasks(
    drawings: Drawings, small_encoder: Make
) -> None:
    bank, reports = drawings[1].bank, []
    for name in ("simclr", "byol"):
        method = make(name, small_encoder()).train()
        tasks = draw_tasks(drawings[1].labels, 9, ways=4, shots=2, queries=3, generator=Generator().manual_seed(0))
        reports += [evaluate(method.learner, bank, tasks, batch=batch) for batch in (7, 800)]
    assert torch.equal(reports[0].per_task, reports[1].per_task), "whatever stands beside an image"
    assert len({report.digest for report in reports}) == 1


def test_classes_that_were_trained_on_without_labels_are_measured_on(
    drawings: Drawings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metarep.experiments.start.load_dataset", lambda *_, **__: drawings[0])
    job = Job("simclr", OWN["simclr"], {"steps": 1, "images": 16}, train_on="trainval")
    trained, _ = start(job, tmp_path, precision="float32")
    with pytest.raises(ValueError, match="40 of the 40 classes of it were seen in training"):
        trained.refuse_seen(drawings[0].labels, "it")


def test_the_recall_of_an_approximate_index_is_not_compared_with_exact_search() -> None:
    pytest.importorskip("faiss", reason="needs faiss: the extra ann")
    rows = functional.normalize(torch.randn(1000, 32, generator=Generator().manual_seed(0)), dim=1)
    found = []
    for kind in ("exact", "faiss"):
        index = build_index(kind, 32)
        index.add(torch.arange(1000), rows)
        found.append(index.search(rows[:100], 10)[1])
    assert (found[0].unsqueeze(2) == found[1].unsqueeze(1)).any(2).float().mean() > 0.95
