"""Training without labels: what views are, labels that are never read and never choose, runs that are resumed."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from contrasting import OWN, SMALL, VIEWS, make, named, sealed, views

from metarep.data.split import Split
from metarep.encoders import Encoder
from metarep.errors import DataError, MetarepError
from metarep.experiments.job import Job
from metarep.experiments.run_folder import RunFolder
from metarep.experiments.start import seen_by, start
from metarep.experiments.training import train
from metarep.machine.files import read_tensors
from metarep.methods import METHODS, Method
from metarep.weights.checkpoint import load_checkpoint, save_checkpoint
from metarep.weights.record import RunRecord
from metarep.weights.settings import TrainSettings

Drawings = tuple[Split, Split]
Make = Callable[..., Encoder]
LOOP = sys.modules[train.__module__]
SHAPE = {"ways": 4, "shots": 2, "queries": 2, "tasks": 2}


def test_drawing_views_reads_no_label(drawings: Drawings) -> None:
    with pytest.raises(AssertionError, match="the labels were read"):
        len(sealed().names)
    assert views(drawings[0], labels=sealed()).digest == views(drawings[0]).digest


@pytest.mark.parametrize("name", VIEWS)
def test_a_whole_training_reads_no_label(name: str, drawings: Drawings, small_encoder: Make, tmp_path: Path) -> None:
    split, settings = drawings[0]._replace(labels=sealed()), TrainSettings(**SMALL)
    run = RunFolder(tmp_path, RunRecord(name, OWN[name], train=settings), [])
    outcome = train(make(name, small_encoder()), split, settings, run=run)
    assert (outcome.step, outcome.accuracy) == (6, None)
    assert load_checkpoint(run.model).method.state_dict().keys() == make(name, small_encoder()).state_dict().keys()


def some_encoder(path: Path, make: Make) -> str:
    """A run that read no label, on other classes, to cluster by."""
    save_checkpoint(
        path,
        METHODS["simclr"](make(), **OWN["simclr"]),
        RunRecord("simclr", OWN["simclr"], labels="none"),
        ["seen"],
    )
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "labels"),
    [(name, kind) for name in METHODS for kind in (("true",) if name in VIEWS else ("instances", "clusters"))],
)
def test_a_job_reads_the_names_of_classes_but_not_who_is_in_them(
    name: str, labels: str, drawings: Drawings, small_encoder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names say what must not be evaluated on; nothing else is known of the training images."""
    found = {"train": drawings[0]._replace(labels=named(drawings[0].labels)), "val": drawings[1]}
    monkeypatch.setattr("metarep.experiments.start.load_dataset", lambda data, part, **_: found[part])
    how: dict[str, Any] = {"labels": labels}
    if labels == "clusters":
        how = {"labels": f"clusters:{some_encoder(tmp_path / 'first.safetensors', small_encoder)}", "clusters": 30}
    shape = SMALL if name in VIEWS else {key: SMALL[key] for key in SMALL if key != "images"} | SHAPE
    job = Job(name, OWN.get(name, {}), shape, encoder={"name": "conv4", "width": 8}, **how)
    start(job, tmp_path / "run", precision="float32")
    trained = load_checkpoint(tmp_path / "run" / "model.safetensors")
    assert trained.labels == ("none" if name in VIEWS else labels)
    assert trained.seen >= seen_by(drawings[0], drawings[1])
    assert ("seen" in trained.seen) == (labels == "clusters")


def test_views_are_two_draws_for_every_image(drawings: Drawings) -> None:
    """Of identical images too: a library's transforms draw once for a batch."""
    same = Split(type(drawings[0].bank)(drawings[0].bank.images[:1].expand(40, -1, -1, -1)), drawings[0].labels, "same")
    batch = views(same, 40)
    both = torch.cat([batch.images, batch.second]).flatten(1)
    assert len(both.unique(dim=0)) == 80
    assert batch.rows.sort().values.tolist() == list(range(40))


def test_rows_are_drawn_evenly_and_views_are_of_their_rows(drawings: Drawings) -> None:
    split = drawings[0]
    drawn = torch.cat([views(split, 40, seed).rows for seed in range(100)])
    counts = drawn.bincount(minlength=800)  # 4000 draws of 800 images: 5 each, with a deviation of 2.2
    assert 3.5 < counts.float().var() < 6.5
    batch, light = views(split, 200), split.bank.images.float().mean((1, 2, 3)) / 255
    for seen in (batch.images, batch.second):
        got = torch.corrcoef(torch.stack([seen.mean((1, 2, 3)), light[batch.rows]]))[0, 1]
        assert got > 0.5, "a view shows the image of its row"


def test_views_that_cannot_be_drawn(drawings: Drawings) -> None:
    with pytest.raises(MetarepError, match=r"the same without augmentation.*set augment to views-drawings"):
        views(drawings[0], augment=None)
    with pytest.raises(
        DataError, match="a batch of 801 different images needs a data set of at least 801, and this one has 800"
    ):
        views(drawings[0], 801)
    with pytest.raises(MetarepError, match="images must be at least 2, not 1"):
        TrainSettings(images=1)


class PulledError(Exception):
    """The plug."""


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.slow
def test_a_resumed_training_is_the_uninterrupted_one(
    name: str, drawings: Drawings, small_encoder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With queue, pointer, fill and target: bit for bit."""
    monkeypatch.setattr(LOOP, "LOG_EVERY", 1)
    settings = TrainSettings(**SMALL)
    about = RunRecord(name, OWN[name], train=settings)

    def go(path: Path, watch: Any = None) -> tuple[Method, Any]:
        method = make(name, small_encoder())
        return method, train(
            method, drawings[0], settings, validation=drawings[1], run=RunFolder(path, about, []), watch=watch
        )

    def pull(record: dict[str, Any]) -> None:
        if record["step"] in (3, 5) and record["step"] not in pulled:
            pulled.append(record["step"])
            raise PulledError

    pulled: list[int] = []
    whole, outcome = go(tmp_path / "whole")
    for _ in range(2):
        with pytest.raises(PulledError):
            go(tmp_path / "pieces", pull)
    pieces, again = go(tmp_path / "pieces", pull)
    assert pulled == [3, 5]
    assert (outcome.step, outcome.accuracy) == (again.step, again.accuracy)
    first, second = whole.state_dict(), pieces.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    saved, _ = read_tensors(tmp_path / "pieces" / "state.safetensors")
    assert all(torch.equal(saved[f"method.{key}"], first[key]) for key in first)
    if name == "moco":
        assert (first["queue.fill"], first["queue.pointer"]) == (40, 6 * 16 % 40)


def test_validation_labels_do_not_choose_for_a_method_without(
    drawings: Drawings, small_encoder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([90.0, 80.0, 70.0])

    def falling(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(accuracy=next(answers), ci95=1.0)

    monkeypatch.setattr(LOOP, "evaluate", falling)
    settings = TrainSettings(**SMALL)
    run = RunFolder(tmp_path, RunRecord("simclr", OWN["simclr"], train=settings), [])
    method = make("simclr", small_encoder())
    outcome = train(method, drawings[0], settings, validation=drawings[1], run=run)
    assert (outcome.step, outcome.accuracy) == (6, 70.0)
    tensors, _ = read_tensors(tmp_path / "state.safetensors")
    kept, model = method.state_dict(), load_checkpoint(run.model).method.state_dict()
    for name, value in kept.items():
        assert torch.equal(value, tensors[f"method.{name}"])
        assert torch.equal(value, model[name])
    assert [record["accuracy"] for record in run.records() if "accuracy" in record] == [90.0, 80.0, 70.0]
