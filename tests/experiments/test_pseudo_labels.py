"""Pseudo-labels: clusters against scikit-learn's, instances as views, few of the true ones, and what a run keeps."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from contrasting import OWN
from sklearn.cluster import KMeans
from torch import Generator, Tensor
from torch.nn import functional

from metarep.data.augment import preset
from metarep.data.batch import BatchShape, LabelledBatch, TaskBatch
from metarep.data.batches import draw_batch
from metarep.data.split import Split
from metarep.encoders import Encoder
from metarep.errors import DataError, MetarepError
from metarep.experiments.job import Job
from metarep.experiments.kmeans import kmeans
from metarep.experiments.pseudo_labels import Labelling, features_of, few, instances, labels_read, pseudo_classes
from metarep.experiments.start import start
from metarep.experiments.training import train
from metarep.machine.files import read_tensors
from metarep.methods import METHODS
from metarep.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from metarep.weights.record import RunRecord

Drawings = tuple[Split, Split]
Make = Callable[..., Encoder]
LOOP = sys.modules[train.__module__]
SHAPE = BatchShape(ways=6, shots=2, queries=3, tasks=2)


# k-means


def cost(rows: Tensor, cluster: Tensor) -> float:
    """The sum of squared distances to the mean of one's own cluster."""
    return sum(float((own - own.mean(0)).square().sum()) for own in (rows[cluster == c] for c in cluster.unique()))


def test_kmeans_is_as_good_as_scikit_learns() -> None:
    """Over several seeds, on rows without clear clusters."""
    rows = torch.randn(1500, 6, generator=Generator().manual_seed(0))
    theirs = [KMeans(25, n_init=1, max_iter=20, random_state=seed).fit(rows.numpy()).inertia_ for seed in range(5)]
    found = [kmeans(rows, 25, Generator().manual_seed(seed)) for seed in range(5)]
    assert sum(cost(rows, each) for each in found) / sum(theirs) < 1.02
    assert len({tuple(each.tolist()) for each in found}) == 5
    assert torch.equal(found[0], kmeans(rows, 25, Generator().manual_seed(0)))


def test_kmeans_finds_what_lies_apart() -> None:
    g = Generator().manual_seed(0)
    y = torch.arange(12).repeat_interleave(30)
    rows = (6 * torch.randn(12, 5, generator=g))[y] + torch.randn(360, 5, generator=g)
    found = kmeans(rows, 12, Generator().manual_seed(1))
    agree = (found[:, None] == found) == (y[:, None] == y)
    assert agree.float().mean() > 0.98


@pytest.mark.parametrize("count", [1, 2, 40, 500])
def test_kmeans_leaves_no_cluster_empty(count: int) -> None:
    rows = torch.randn(40, 3, generator=Generator().manual_seed(0))
    found = kmeans(rows, count, Generator().manual_seed(0))
    assert found.unique().tolist() == list(range(min(count, 40)))
    assert kmeans(torch.ones(7, 3), count, Generator().manual_seed(0)).tolist() == [0] * 7


def test_features_are_centred_and_on_the_sphere(drawings: Drawings, small_encoder: Make) -> None:
    learner = METHODS["protonet"](small_encoder()).train().learner
    rows = features_of(learner, drawings[0].bank)
    assert learner.training
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(800))
    with torch.no_grad():
        features = learner.eval().embed(drawings[0].bank.images)
    torch.testing.assert_close(functional.normalize(features - features.mean(0)), rows, rtol=1e-3, atol=1e-4)


# instances


def test_samples_of_an_instance_are_views_of_one_image(drawings: Drawings) -> None:
    split, augment, labels = drawings[0], preset("views-drawings"), instances(800)
    batch = draw_batch(TaskBatch, split.bank, labels, SHAPE, augment, Generator().manual_seed(0))
    assert isinstance(batch, TaskBatch)
    tasks = batch.tasks
    for index, y in ((tasks.support, tasks.support_y), (tasks.query, tasks.query_y)):
        assert torch.equal(batch.rows[index], tasks.classes.gather(1, y))
    assert all(len(own.unique()) == 6 for own in tasks.classes)
    assert len(batch.images.flatten(1).unique(dim=0)) == 2 * 6 * 5, "every sample has a draw of its own"
    pairs = draw_batch(LabelledBatch, split.bank, labels, SHAPE, augment, Generator().manual_seed(0))
    assert isinstance(pairs, LabelledBatch)
    assert len(pairs.rows.unique()) == 6
    assert all(len(pairs.rows[pairs.labels == way].unique()) == 1 for way in range(6))
    for eats in (TaskBatch, LabelledBatch):
        with pytest.raises(
            MetarepError, match=r"each image is a class of its own; its samples are the same.*set augment to views-dra"
        ):
            draw_batch(eats, split.bank, labels, SHAPE, None, Generator())
    with pytest.raises(DataError, match="need 6 classes of at least 1 image; the data has 5"):
        draw_batch(TaskBatch, split.bank, instances(5), SHAPE, augment, Generator())


# clusters


def test_clusters_too_small_for_the_batch_are_never_drawn(drawings: Drawings) -> None:
    labels = pseudo_classes([torch.arange(8).repeat_interleave(torch.tensor([4, 5, 6, 20, 3, 40, 7, 5]))])
    shape = BatchShape(ways=6, shots=2, queries=3, tasks=40)
    batch = draw_batch(TaskBatch, drawings[0].bank, labels, shape, None, Generator().manual_seed(0))
    assert isinstance(batch, TaskBatch)
    assert batch.tasks.classes.unique().tolist() == [1, 2, 3, 5, 6, 7]
    with pytest.raises(DataError, match=r"need 7 classes of at least 5 images; 6 of the 8 clusters.*fewer clusters"):
        draw_batch(TaskBatch, drawings[0].bank, labels, BatchShape(7, 2, 3), None, Generator())


def test_every_batch_is_of_one_division_and_all_have_their_turn(drawings: Drawings) -> None:
    first, second = torch.arange(800) // 40, torch.arange(800) % 20
    labels, used = pseudo_classes([first, second]), []
    for seed in range(40):
        batch = draw_batch(TaskBatch, drawings[0].bank, labels, SHAPE, None, Generator().manual_seed(seed))
        assert isinstance(batch, TaskBatch)
        own = batch.tasks.classes.gather(1, batch.tasks.support_y)
        fits = [torch.equal(each[batch.rows[batch.tasks.support]], own) for each in (first, second)]
        assert sum(fits) == 1
        used.append(fits.index(True))
    assert 8 < sum(used) < 32
    assert len({each.digest for each in (labels, pseudo_classes([first]), pseudo_classes([first, first]))}) == 3


# few


def test_few_are_so_many_of_each_class_and_grow_with_the_number(drawings: Drawings) -> None:
    split, rows = drawings[0], {}
    for count in (1, 5, 100):
        some = few(split, count, seed=3)
        assert some.labels.counts.tolist() == [min(count, 20)] * 40
        assert some.labels.names == split.labels.names
        where = {image.numpy().tobytes(): row for row, image in enumerate(split.bank.images)}  # all are different
        rows[count] = [where[image.numpy().tobytes()] for image in some.bank.images]
        assert torch.equal(split.labels.classes[rows[count]], some.labels.classes)
    assert set(rows[1]) < set(rows[5]) < set(rows[100])
    assert torch.equal(few(split, 5, seed=3).bank.images, split.bank.images[rows[5]])
    assert not torch.equal(few(split, 5, seed=4).bank.images, split.bank.images[rows[5]])
    groups = torch.arange(800) % 7
    grouped = type(split.labels)(split.labels.classes, split.labels.names, split.labels.keys, groups)
    chosen = few(split._replace(labels=grouped), 5, seed=3).labels
    assert chosen.groups is not None
    assert chosen.counts.tolist() == [5] * 40
    for own in chosen.groups.view(40, 5):
        assert len(own.unique()) == 5, "of as many groups as there are"


# what is refused, and what rows say


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": "cluster:a"}, r"unknown labels 'cluster:a'; did you mean 'clusters:RUN'"),
        ({"labels": "instances:a"}, "unknown labels 'instances:a'"),
        ({"labels": "clusters"}, "needs the run whose features are divided: clusters:RUN"),
        ({"clusters": 10}, "clusters and partitions go with labels=clusters:RUN, not with true"),
        ({"labels": "instances", "partitions": 2}, "not with instances"),
        ({"labels": "clusters:a", "clusters": 1}, "clusters must be at least 2, not 1"),
        ({"labels": "clusters:a", "partitions": 0}, "partitions must be at least 1, not 0"),
        ({"labels": "instances", "labels_per_class": 5}, "chooses among true labels, not among instances"),
        ({"labels_per_class": 0}, "labels_per_class must be at least 1, not 0"),
    ],
)
def test_labels_that_cannot_be_meant(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(MetarepError, match=message):
        Job("protonet", **settings)


@pytest.mark.parametrize("settings", [{"labels": "instances"}, {"labels": "clusters:a"}, {"labels_per_class": 5}])
def test_a_method_without_labels_takes_none(settings: dict[str, Any]) -> None:
    with pytest.raises(MetarepError, match="byol reads no labels; leave out labels and labels_per_class"):
        Job("byol", **settings)


@pytest.mark.slow
def test_what_was_read_is_the_most_that_any_run_read(small_encoder: Make) -> None:
    def run(labels: str) -> Checkpoint:
        return Checkpoint.of(METHODS["protonet"](small_encoder()), RunRecord("protonet", labels=labels), [])

    order = ["none", "instances", "clusters", "1-a-class", "5-a-class", "10-a-class", "true"]
    for place, low in enumerate(order):
        for high in order[place:]:
            assert labels_read(low, run(high), None) == labels_read(high, None, run(low)) == high
    assert Labelling("clusters:runs/a").called == "clusters"
    assert Labelling(per_class=3).called == "3-a-class"


# trainings


class PulledError(Exception):
    """The plug."""


@pytest.fixture
def data(drawings: Drawings, monkeypatch: pytest.MonkeyPatch) -> dict[str, Split]:
    found = {"train": drawings[0], "val": drawings[1]}
    monkeypatch.setattr("metarep.experiments.start.load_dataset", lambda data, part, **_: found[part])
    return found


def job_with(steps: int, **how: Any) -> Job:
    shape = {"steps": steps, "ways": 4, "shots": 1, "queries": 2, "validate_every": 2, "validation_tasks": 10}
    return Job("protonet", train=shape, encoder={"name": "conv4", "width": 8}, **how)


def write_source(path: Path, encoder: Encoder) -> None:
    method = METHODS["simclr"](encoder, **OWN["simclr"])
    save_checkpoint(path, method, RunRecord("simclr", OWN["simclr"], labels="none"), [])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clusters", "instances"])
def test_a_resumed_training_is_the_uninterrupted_one(
    kind: str, data: dict[str, Split], small_encoder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, on the division that it began with, whatever has become of the run that made it."""
    monkeypatch.setattr(LOOP, "LOG_EVERY", 1)
    source = tmp_path / "source.safetensors"
    write_source(source, small_encoder())
    how = {"labels": f"clusters:{source}", "clusters": 40, "partitions": 2} if kind == "clusters" else {"labels": kind}

    def pull(record: dict[str, Any]) -> None:
        if record["step"] == 3:
            raise PulledError

    whole, outcome = start(job_with(6, **how), tmp_path / "whole", precision="float32")
    with pytest.raises(PulledError):
        start(job_with(6, **how), tmp_path / "pieces", precision="float32", watch=pull)
    write_source(source, small_encoder(seed=9))
    pieces, again = start(job_with(6, **how), tmp_path / "pieces", precision="float32")
    first, second = whole.method.state_dict(), pieces.method.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert (outcome.step, outcome.accuracy) == (again.step, again.accuracy)
    if kind == "instances":
        return
    tensors, header = read_tensors(tmp_path / "pieces" / "clusters.safetensors")
    assert tensors["clusters"].shape == (2, 800)
    assert header == {"clusters": 40, "partitions": 2, "clustered_by": "source.safetensors", "seed": 0}
    trained = load_checkpoint(tmp_path / "pieces" / "model.safetensors")
    assert trained.record.data.clustered_by == "source.safetensors"
    with pytest.raises(MetarepError, match=r"holds a run with data\.\w+ = .*choose another out"):
        start(job_with(6, **{**how, "clusters": 30}), tmp_path / "pieces", precision="float32")


@pytest.mark.slow
def test_validation_labels_do_not_choose_where_none_were_read(
    data: dict[str, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([90.0, 80.0] * 2)
    monkeypatch.setattr(LOOP, "evaluate", lambda *_, **__: SimpleNamespace(accuracy=next(answers), ci95=1.0))
    kept = [
        start(job_with(4, labels=kind), tmp_path / kind, precision="float32")[1].step for kind in ("true", "instances")
    ]
    assert kept == [2, 4]


@pytest.mark.slow
@pytest.mark.parametrize(("labels", "ways"), [("true", 40), ("instances", 60), ("clusters", 20)])
def test_the_ways_are_what_there_is(
    labels: str, ways: int, data: dict[str, Split], small_encoder: Make, tmp_path: Path
) -> None:
    """Of the 60 of the defaults, where nobody says how many: clusters that are too small do not count."""
    source = tmp_path / "source.safetensors"
    write_source(source, small_encoder())
    how = {"labels": labels if labels != "clusters" else f"clusters:{source}"}  # one for every 40 images: 20
    start(Job("protonet", train={"steps": 1}, encoder={"name": "conv4", "width": 8}, **how), tmp_path / "run")
    found = load_checkpoint(tmp_path / "run" / "model.safetensors").record.train
    if labels == "clusters":
        ways = read_tensors(tmp_path / "run" / "clusters.safetensors")[0]["clusters"][0].long().bincount().ge(6).sum()
        assert 10 < ways < 21
    assert found.ways == ways
    assert found.augment == ("views-drawings" if labels == "instances" else "drawings")
