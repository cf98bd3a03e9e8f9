"""Bridges between methods: a run that starts from another, few labels to go on with, and any learner on any run."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from contrasting import OWN, SMALL, VIEWS
from torch import Generator

from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.data.tasks import draw_tasks
from metarep.encoders import Encoder
from metarep.errors import MetarepError
from metarep.experiments.job import Job, train_settings
from metarep.experiments.measurement.evaluation import evaluate
from metarep.experiments.measurement.measure import Setting, measure, pick_learner
from metarep.experiments.measurement.rows import result_row
from metarep.experiments.run_folder import RunFolder, read_record
from metarep.experiments.start import start
from metarep.learners import INDUCTIVE, LEARNERS
from metarep.methods import BYOL, METHODS, MoCo
from metarep.weights.checkpoint import load_checkpoint
from metarep.weights.record import RunRecord
from metarep.weights.settings import TrainSettings

Drawings = tuple[Split, Split]
Make = Callable[..., Encoder]


def narrow(method: str, **more: Any) -> Job:
    common = {"steps": 2, "validate_every": 2, "validation_tasks": 10}
    shape = {"images": 16} if method in VIEWS else {"ways": 6, "shots": 2, "queries": 2}
    encoder = more.pop("encoder", {"name": "conv4", "width": 8})
    return Job(method, OWN.get(method, {}), {**common, **shape, **more.pop("train", {})}, encoder=encoder, **more)


def test_the_preset_and_the_batch_suit_the_images(drawings: Drawings) -> None:
    def chosen(method: str, side: int, channels: int) -> str:
        images = torch.zeros(60, channels, side, side, dtype=torch.uint8)
        split = Split(type(drawings[0].bank)(images), Labels.of([i // 20 for i in range(60)]), "photos")
        settings = train_settings(Job(method, encoder={"name": "conv4", "width": 4}), split)
        assert settings.images == (60 if method in VIEWS else 256)
        return settings.augment

    assert train_settings(Job("simclr"), drawings[0]).augment == "views-drawings"
    assert train_settings(Job("protonet"), drawings[0]).augment == "drawings"
    assert [chosen(name, 32, 3) for name in VIEWS] == ["views-32"] * 3
    assert [chosen(name, 84, 3) for name in VIEWS] == ["few-shot-84"] * 3
    assert chosen("protonet", 84, 3) == "photos"


@pytest.fixture
def data(drawings: Drawings, monkeypatch: pytest.MonkeyPatch) -> dict[str, Split]:
    found = {"train": drawings[0], "val": drawings[1]}
    monkeypatch.setattr("metarep.experiments.start.load_dataset", lambda data, part, **_: found[part])
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [("simclr", "protonet"), ("protonet", "byol"), ("byol", "moco")])
def test_a_run_starts_from_another_of_any_method(first: str, then: str, data: dict[str, Split], tmp_path: Path) -> None:
    start(narrow(first), tmp_path / "first", precision="float32")
    initial = load_checkpoint(tmp_path / "first" / "model.safetensors")
    data["trainval"], other = data["val"], data["train"]
    job = narrow(then, init=str(tmp_path / "first"), train_on="trainval", train={"lr": 1e-30})  # stays where it starts
    start(job, tmp_path / "then", precision="float32")
    trained = load_checkpoint(tmp_path / "then" / "model.safetensors")
    weights = dict(initial.learner.encoder.named_parameters())
    for name, value in trained.learner.encoder.named_parameters():
        torch.testing.assert_close(value, weights[name])
    if isinstance(trained.method, MoCo | BYOL):
        for name, value in trained.method.target[0].named_parameters():
            torch.testing.assert_close(value, weights[name])
    assert trained.seen >= initial.seen
    assert len(trained.seen) == 80
    assert other.labels.keys[0] not in data["trainval"].labels.keys
    with pytest.raises(MetarepError, match="were seen in training"):
        trained.refuse_seen(other.labels, "train")
    tasks = draw_tasks(other.labels, 2, ways=2, shots=1, queries=1, generator=Generator())
    report = evaluate(trained.learner, other.bank, tasks, split="drawings/train")
    row = result_row(trained, "trained", report, "path")
    assert row["init"] == "first"
    assert row["labels"] == ("none" if {first, then} <= set(VIEWS) else "true")
    assert result_row(trained, "untrained encoder", report, "path")["init"] == "random"
    assert json.loads((tmp_path / "then" / "settings.json").read_text())["init"] == "first"
    with pytest.raises(MetarepError, match="init = 'first', not None"):
        start(narrow(then, train_on="trainval", train={"lr": 1e-30}), tmp_path / "then", precision="float32")


def test_a_start_that_does_not_fit_is_refused(data: dict[str, Split], tmp_path: Path) -> None:
    start(narrow("simclr"), tmp_path / "first", precision="float32")
    init = str(tmp_path / "first")
    with pytest.raises(
        MetarepError,
        match=r"has the encoder .*'width': 8.* and this training .*'width': 16.*; choose .* width",
    ):
        start(narrow("protonet", init=init, encoder={"name": "conv4", "width": 16}), tmp_path / "a")
    small = type(data["train"].bank)(data["train"].bank.images[..., :16, :16])
    data["train"] = data["train"]._replace(bank=small)
    with pytest.raises(MetarepError, match=r"trained on images with size \(20, 20\), and these have \(16, 16\)"):
        start(narrow("protonet", init=init), tmp_path / "b")
    dark = type(small)(255 - data["val"].bank.images)
    data["train"] = data["train"]._replace(bank=dark)
    with pytest.raises(MetarepError, match="trained on images with invert True, and these have False"):
        start(narrow("protonet", init=init), tmp_path / "c")
    with pytest.raises(MetarepError, match="unknown model or run folder"):
        start(narrow("protonet", init="nowhere"), tmp_path / "d")


def test_a_run_older_than_a_setting_is_still_the_same_run(tmp_path: Path) -> None:
    settings = TrainSettings(**SMALL)
    with (run := RunFolder(tmp_path, RunRecord("protonet", train=settings), [])).held():
        run.save_state({}, {"step": 1})
    saved = json.loads((tmp_path / "settings.json").read_text())
    del saved["train"]["stop_on_collapse"]
    (tmp_path / "settings.json").write_text(json.dumps(saved))
    assert read_record(tmp_path / "settings.json") == RunRecord("protonet", train=settings)
    RunFolder(tmp_path, RunRecord("protonet", train=settings), [])
    with pytest.raises(MetarepError, match=r"train.stop_on_collapse = False, not True"):
        RunFolder(tmp_path, RunRecord("protonet", train=replace(settings, stop_on_collapse=True)), [])


# few labels


@pytest.mark.slow
def test_few_labels_are_said_in_the_row_and_the_folder(data: dict[str, Split], tmp_path: Path) -> None:
    start(narrow("simclr"), tmp_path / "first", precision="float32")
    job = narrow("protonet", init=str(tmp_path / "first"), labels_per_class=4)
    start(job, tmp_path / "few", precision="float32")
    trained = load_checkpoint(tmp_path / "few" / "model.safetensors")
    assert trained.labels == "4-a-class"
    tasks = draw_tasks(data["val"].labels, 2, ways=2, shots=1, queries=1, generator=Generator())
    row = result_row(trained, "trained", evaluate(trained.learner, data["val"].bank, tasks, split="a/b"), "path")
    assert (row["labels"], row["init"]) == ("4-a-class", "first")
    with pytest.raises(MetarepError, match=r"holds a run with data\.\w+ = .*choose another out"):
        start(narrow("protonet", init=str(tmp_path / "first"), labels_per_class=5), tmp_path / "few")


# every learner on every representation


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_every_learner_takes_every_representation(name: str, data: dict[str, Split], tmp_path: Path) -> None:
    """Whatever trained it: any ways, any shots, better than chance, and the report says which learner it was."""
    start(narrow(name), tmp_path, precision="float32")
    trained = load_checkpoint(tmp_path / "model.safetensors")
    for learner in LEARNERS:
        for ways, shots in ((3, 1), (5, 5), (8, 1)):
            chosen = pick_learner(trained, learner)
            report = measure(chosen, data["val"], Setting(range(ways, ways + 1), range(shots, shots + 1), tasks=40))
            assert report.learner.startswith(learner)
            wanted = "inductive" if learner in INDUCTIVE else "transductive"
            assert (report.protocol, report.normalisation) == (wanted, "running")
            assert report.accuracy - report.ci95 > 100 / ways, (learner, ways, shots)
