"""RunFolder: a resumed training is exact, the log is complete, and another run is refused."""

import json
import math
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from trainings import (
    OPTIMISERS,
    SMALL,
    Case,
    Drawings,
    Make,
    PulledError,
    build,
    folder,
    pull_at,
    run,
    same,
    without_clock,
)

from metarep import __version__
from metarep.encoders import Encoder
from metarep.errors import MetarepError
from metarep.experiments.run_folder import RunFolder
from metarep.experiments.training import train
from metarep.learners import Prototypes
from metarep.machine.device import environment
from metarep.machine.files import read_tensors
from metarep.methods import METHODS, ProtoNet, Siamese
from metarep.weights.record import DataRecord, RunRecord
from metarep.weights.settings import TrainSettings
from metarep.weights.shipped import load_learner

LOOP = sys.modules[train.__module__]


@pytest.fixture(autouse=True)
def every_step_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOOP, "LOG_EVERY", 1)


CASES = {
    "AdamW": Case(),
    **{name: Case(optimiser=name) for name in OPTIMISERS},
    "without validation": Case(validated=False),
    "ResNet12 with DropBlock": Case("resnet12"),
    "ResNet12 without validation": Case("resnet12", validated=False, augment="drawings"),
    "siamese, augmented": Case(method=Siamese, augment="drawings"),
}


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.mark.parametrize("pulls", [(7,), (3, 5, 9, 12)], ids=["once", "four times"])
@pytest.mark.slow
def test_a_resumed_training_is_the_uninterrupted_one(
    case: Case, pulls: tuple[int, ...], drawings: Drawings, small_encoder: Make, tmp_path: Path
) -> None:
    """Bit for bit: weights, statistics, state of the optimiser, best weights, and every line of the log."""
    whole, outcome, one = run(case, drawings, small_encoder, tmp_path / "whole")
    pieces, again, other = run(case, drawings, small_encoder, tmp_path / "pieces", *pulls)
    assert same(whole.state_dict(), pieces.state_dict())
    assert (outcome.step, outcome.accuracy) == (again.step, again.accuracy)
    assert without_clock(one.records()) == without_clock(other.records())
    for file in ("state.safetensors", "model.safetensors"):
        (tensors, header), (others, heading) = read_tensors(one.path / file), read_tensors(other.path / file)
        assert same(tensors, others), file
        assert without_clock([header]) == without_clock([heading])


@pytest.mark.slow
def test_a_finished_training_is_not_trained_again(drawings: Drawings, small_encoder: Make, tmp_path: Path) -> None:
    method, outcome, _ = run(Case(), drawings, small_encoder, tmp_path)
    log = (tmp_path / "log.jsonl").read_text()
    again, same_outcome, _ = run(Case(), drawings, small_encoder, tmp_path)
    assert same(method.state_dict(), again.state_dict())
    assert (same_outcome.step, same_outcome.accuracy) == (outcome.step, outcome.accuracy)
    assert same_outcome.seconds == pytest.approx(outcome.seconds)
    assert (tmp_path / "log.jsonl").read_text() == log


@pytest.mark.slow
def test_the_log_has_every_step_once(drawings: Drawings, small_encoder: Make, tmp_path: Path) -> None:
    """Also if the training is interrupted before anything was saved."""
    *_, last = run(Case(), drawings, small_encoder, tmp_path, 3, 6, 7, 11)
    losses = [record for record in last.records() if "loss" in record]
    checks = [record for record in last.records() if "accuracy" in record]
    assert [record["step"] for record in losses] == list(range(1, 13))
    assert [record["step"] for record in checks] == [4, 8, 12]
    settings = TrainSettings(**SMALL)
    for record in losses:
        assert set(record) == {"step", "loss", "lr", "images_per_second", "seconds_left"}
        assert record["lr"] == settings.lr_at(record["step"] - 1)
        assert record["images_per_second"] > 0
        assert math.isfinite(record["loss"])
    assert all(set(record) == {"step", "accuracy", "ci95"} for record in checks)


@pytest.mark.slow
def test_a_line_that_was_being_written_does_not_stop_a_resume(
    drawings: Drawings, small_encoder: Make, tmp_path: Path
) -> None:
    settings = TrainSettings(**SMALL)
    with pytest.raises(PulledError):
        train(
            build(Case(), small_encoder), drawings[0], settings,
            run=folder(tmp_path, settings), watch=pull_at(6),
        )  # fmt: skip
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    train(build(Case(), small_encoder), drawings[0], settings, run=folder(tmp_path, settings))
    assert [record["step"] for record in folder(tmp_path, settings).records()] == list(range(1, 13))


def test_other_settings_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    settings = TrainSettings(**SMALL)
    with folder(tmp_path, TrainSettings(**SMALL, lr=0.1)).held():
        pass  # it failed before anything was saved, so another run may use the folder
    with (run := folder(tmp_path, settings, data=DataRecord("glyphs", "train"))).held():
        run.save_state({}, {"step": 4})
    folder(tmp_path, settings, data=DataRecord("glyphs", "train"))
    with pytest.raises(MetarepError, match=r"holds a run with train.lr = 0.003, not 0.1; choose another out"):
        folder(tmp_path, TrainSettings(**SMALL, lr=0.1), data=DataRecord("glyphs", "train"))
    with pytest.raises(MetarepError, match=r"holds a run with data.split = 'train', not 'trainval'"):
        folder(tmp_path, settings, data=DataRecord("glyphs", "trainval"))
    with pytest.raises(MetarepError, match=r"holds a run with init = None, not 'mine'"):
        folder(tmp_path, settings, data=DataRecord("glyphs", "train"), init="mine")
    assert json.loads((tmp_path / "settings.json").read_text())["train"] == settings.as_dict()
    assert "torch" in json.loads((tmp_path / "environment.json").read_text())["packages"]
    for damaged in ("{", "null"):
        (tmp_path / "settings.json").write_text(damaged)
        with pytest.raises(MetarepError, match=r"settings.json (is damaged|does not hold).*choose another out"):
            folder(tmp_path, settings)


@pytest.mark.slow
def test_a_folder_takes_one_training_at_a_time(drawings: Drawings, small_encoder: Make, tmp_path: Path) -> None:
    settings, messages = TrainSettings(**SMALL), list[str]()

    def again(_: dict[str, Any]) -> None:
        with pytest.raises(MetarepError) as refused:
            train(ProtoNet(small_encoder()), drawings[0], settings, run=folder(tmp_path, settings))
        messages.append(str(refused.value))

    train(ProtoNet(small_encoder()), drawings[0], settings, run=folder(tmp_path, settings), watch=again)
    assert set(messages) == {
        f"another process is training in {tmp_path}; wait until it has ended, or choose another out"
    }
    train(ProtoNet(small_encoder()), drawings[0], settings, run=folder(tmp_path, settings))


def test_the_version_is_known_without_an_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr("metarep.machine.device.version", absent)
    packages = environment()["packages"]
    assert packages["metarep"] == __version__
    assert packages["torch"] == "not installed"


def test_a_run_of_a_method_of_ones_own_opens_once_its_class_is_registered(
    drawings: Drawings, small_encoder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nearest(Prototypes):
        pass

    class Own(ProtoNet):
        def __init__(self, encoder: Encoder) -> None:
            super().__init__(encoder)
            self.learner = Nearest(encoder)

    settings = TrainSettings(**SMALL | {"steps": 1})
    train(Own(small_encoder()), drawings[0], settings, run=RunFolder(tmp_path / "own", RunRecord("mine"), seen=()))
    with pytest.raises(MetarepError, match=r"unknown method 'mine'. If it is a method of your own, register its class"):
        load_learner(tmp_path / "own")
    monkeypatch.setitem(METHODS, "mine", Own)
    assert isinstance(load_learner(tmp_path / "own"), Nearest)
