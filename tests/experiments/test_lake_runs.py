"""Lake's runs: the error rate, the picture of wrong answers, and the row of the results table."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from metarep import Encoder, Preprocess, Prototypes
from metarep.data.datasets.omniglot_runs import Runs
from metarep.data.images import ImageBank
from metarep.experiments import reproduce
from metarep.experiments.measurement import lake_runs
from metarep.experiments.measurement.report import Report
from metarep.experiments.recipes import load_recipe
from metarep.weights.checkpoint import Checkpoint
from metarep.weights.record import DataRecord, RunRecord


@pytest.fixture
def runs() -> Runs:
    """Three runs of four classes; each test drawing is the training drawing of its class."""
    drawings = torch.randint(256, (3, 4, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(24).view(3, 2, 4)
    classes = torch.arange(4).expand(3, 4).contiguous()
    images = torch.stack([drawings, drawings], 1).view(24, 1, 8, 8)
    keys = tuple(tuple(f"omniglot/a/{run}{i}" for i in range(4)) for run in range(3))
    return Runs(ImageBank(images), rows[:, 0].contiguous(), rows[:, 1].contiguous(), classes, classes.clone(), keys)


@pytest.fixture
def learner() -> Prototypes:
    return Prototypes(Encoder(torch.nn.Flatten(), Preprocess((8, 8), 1, (0.0,), (1.0,)), {"name": "pixels"}))


def test_errors_are_counted_and_drawn(runs: Runs, learner: Prototypes, tmp_path: Path) -> None:
    assert lake_runs.error_rate(learner, runs).error == 0
    assert lake_runs.draw_errors(learner, runs, tmp_path / "none.png") == 0
    assert not (tmp_path / "none.png").exists()
    runs.query_y[1, :2] = torch.tensor([1, 0])  # the key of two answers is wrong
    assert lake_runs.error_rate(learner, runs).error == pytest.approx(100 * 2 / 12)
    assert lake_runs.draw_errors(learner, runs, tmp_path / "deep" / "two.png") == 2
    with Image.open(tmp_path / "deep" / "two.png") as picture:
        assert picture.size == (664, 138)


def test_a_run_becomes_a_row(runs: Runs, learner: Prototypes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake_runs, "load_runs", lambda options: runs if options.size == 8 else None)
    record = RunRecord("protonet", data=DataRecord("omniglot:lake", "trainval"))
    trained = Checkpoint(learner, record, frozenset())
    row = lake_runs.runs_row(
        trained, trained.learner, tmp_path, size=8, data_dir=None, recipe="lake-runs", published=96.7
    )
    expected = {"accuracy": 100.0, "ways": 4, "tasks": 3, "data": "omniglot-runs", "published": 96.7}
    assert SimpleNamespace(**row).trained_on == "omniglot:lake/trainval"
    assert expected.items() <= row.items()


def test_a_recipe_may_name_its_method() -> None:
    recipe = load_recipe("lake-runs")
    assert (recipe.method, recipe.measure[0]["data"]) == ("protonet", "omniglot-runs")


def test_lakes_runs_do_not_hide_the_published_figures_of_tasks() -> None:
    how = ("inductive", "running", "prototypes", "omniglot/test", "0123456789ab")
    report = Report(90.0, 1.0, 2, "20", "1", 15, *how, seconds=1.0, per_task=torch.tensor([89.0, 91.0]))
    assert reproduce._published(load_recipe("lake-runs"), report) == ""
    assert reproduce._published(load_recipe("protonet-omniglot"), report) == 96.0
