"""``metarep evaluate``: several data sets, files of tasks, arrays of features, and what does not go together."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarep.cli import main
from metarep.cli.measured import FewImagesWarning, warn_of_few_images
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.experiments.measurement.measure import Setting
from metarep.methods import ProtoNet
from metarep.weights.checkpoint import Checkpoint
from metarep.weights.record import RunRecord

SMALL = ("--tasks", "20", "--queries", "3", "--json")


@pytest.fixture
def run(drawings: tuple[Split, Split], small_encoder: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a run; every data set has the drawings."""
    trained = Checkpoint.of(ProtoNet(small_encoder()), RunRecord("protonet"), [])
    monkeypatch.setattr("metarep.cli.evaluate.load_to_measure", lambda *_, **__: trained)
    load = lambda name, split, **_: drawings[1]._replace(name=f"{name}/{split}")  # noqa: E731
    monkeypatch.setattr("metarep.cli.evaluate.load_dataset", load)
    return "run"


def rows(capsys: pytest.CaptureFixture[str], *command: str | Path) -> list[dict[str, Any]]:
    assert main([str(word) for word in ("evaluate", *command)]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_tasks_go_through_a_file(run: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "tasks.json"
    ranges = ("--ways", "2-4", "--shots", "1-2")
    drawn = rows(capsys, run, "--data", "a", *SMALL, *ranges, "--save-tasks", file, "--reliability")
    again = rows(capsys, run, "--data", "a", "--tasks", file, "--json", "--reliability")
    timed = {"seconds", "task_seconds"}
    assert [{k: v for k, v in row.items() if k not in timed} for row in drawn] == [
        {k: v for k, v in row.items() if k not in timed} for row in again
    ]
    assert (again[0]["ways"], again[0]["shots"], again[0]["tasks"]) == ("2-4", "1-2", 20)
    assert 50 < again[0]["auroc"] <= 100
    assert main(["evaluate", run, "--data", "b", "--tasks", str(file)]) == 2
    assert f"{file} has tasks of another data set: its data is 'a'" in capsys.readouterr().err


def test_several_data_sets_stand_in_one_table(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(capsys, run, "--data", "a,b", *SMALL, "--no-references", "--retrieval")
    assert [(row["data"], row["accuracy"] == found[0]["accuracy"]) for row in found] == [("a", True), ("b", True)]
    assert all(0 < row["retrieval"]["recall@1"] <= 100 for row in found)


def test_features_come_from_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    labels = np.arange(240) // 20
    np.savez(tmp_path / "mine.npz", features=np.eye(12)[labels], labels=labels)
    (row,) = rows(capsys, "--features", tmp_path / "mine.npz", *SMALL, "--reliability", "--retrieval")
    assert (row["accuracy"], row["auroc"], row["retrieval"]["map_at_r"]) == (100, 100, pytest.approx(100))
    assert main(["evaluate", "--features", str(tmp_path / "none.npz")]) == 2
    assert "cannot be read as an .npz file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([], "give a RUN or --features"),
        (["run", "--features", "x.npz"], "give a RUN or --features"),
        (["run", "--tasks", "t.json", "--ways", "4"], "--ways goes with tasks that are drawn"),
        (["run", "--save-tasks", "t.json", "--ways", "4,5"], "--save-tasks writes one set of tasks"),
        (["run", "--data", "a,b", "--save-tasks", "t.json"], "a file of tasks is of one data set"),
        (["run", "--data", "a,omniglot-runs"], "measure it alone"),
        (["run", "--shard", "1/2", "--out", "s.json", "--retrieval"], "a shard is not a result"),
        (["--features", "x.npz", "--within"], "--within does not go with --features"),
    ],
)
def test_what_does_not_go_together_is_said(
    run: str, capsys: pytest.CaptureFixture[str], command: list[str], message: str
) -> None:
    command = [*command, "--data", "a"] if "run" in command and "--data" not in command else command
    assert main(["evaluate", *command]) == 2
    assert message in capsys.readouterr().err


def test_tasks_that_take_half_of_the_images_are_warned_of() -> None:
    labels = Labels.of([f"{i % 5}" for i in range(40)])
    split = Split(ImageBank(torch.zeros(40, 1, 2, 2, dtype=torch.uint8)), labels, "beetles/test")
    few, enough = (Setting(range(5, 6), range(1, 2), queries, 10) for queries in (4, 3))
    with pytest.warns(FewImagesWarning, match="beetles/test has 40 images, and a task takes up to 25: the intervals"):
        warn_of_few_images(split, [enough, few])
    warn_of_few_images(split, [enough])  # a warning would be an error here
