"""Trackers: what a training reports arrives there, a resumed training continues its run, a lost one ends nothing."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from metarep.cli import main
from metarep.cli.progress import progress
from metarep.cli.trackers import KNOWN, TRACKERS, TrackerWarning
from metarep.cli.train import TRACKED
from metarep.errors import MetarepError
from metarep.weights.hub.contents import SETTINGS

RECORDS = [
    {"step": 0, "steps": 20, "images": "in memory"},
    {"step": 10, "steps": 20, "loss": 2.0, "lr": 0.1},
    {"step": 20, "steps": 20, "loss": 1.5, "lr": 0.1},
]
BROKEN = [*RECORDS[:2], {"no": "step"}]  # a training that ends with an error after its first figures
FIGURES = {"loss": 2.0, "lr": 0.1}


class Fake(ModuleType):
    """A stand-in for wandb or trackio, with the calls of theirs that are used here."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.begun: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.ended: list[dict[str, Any]] = []
        self.broken: set[str] = set()

    def init(self, **options: Any) -> SimpleNamespace:
        self._fail("init")
        print("a tracker that greets on standard output")
        self.begun.append(options)
        name = options.get("id") or f"run-{len(self.begun)}"
        return SimpleNamespace(id=name, name=options["name"], log=self.log, finish=self.finish)

    def log(self, figures: dict[str, float], *, step: int) -> None:
        self._fail("log")
        self.logged.append((step, figures))

    def finish(self, **options: Any) -> None:
        self.ended.append(options)

    def _fail(self, what: str) -> None:
        if what in self.broken:
            raise ConnectionError(f"no network\nfor {what}")


@pytest.fixture(params=["wandb", "trackio"])
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Fake:
    module = Fake(request.param)
    monkeypatch.setitem(sys.modules, request.param, module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / SETTINGS).write_text(json.dumps({"method": "protonet", "train": {"lr": 0.1}}))
    return tmp_path


def report(name: str, folder: Path, records: list[dict[str, Any]] = RECORDS) -> None:
    with progress(quiet=True, trackers=[name], folder=folder) as watch:
        for record in records:
            watch(record)


def test_each_tracker_has_a_flag_and_an_extra() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
    assert list(TRACKED) == list(TRACKERS)
    assert [name for name in TRACKERS if f'\n{name} = ["' not in project] == []


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_that_is_not_installed_is_named(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("torch.utils.tensorboard", "mlflow", "wandb", "trackio"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MetarepError, match=rf"needs {name}: pip install 'metarep\[{name}\]'"):
        report(name, folder)


def test_the_figures_arrive_and_the_run_ends(fake: Fake, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(fake.__name__, folder)
    (begun,) = fake.begun
    assert begun["project"] == "metarep"
    assert begun["config"] == {"method": "protonet", "train.lr": 0.1}
    assert fake.logged == [(10, FIGURES), (20, {"loss": 1.5, "lr": 0.1})]
    assert len(fake.ended) == 1
    assert capsys.readouterr().out == "", "standard output is for results"


def test_a_resumed_training_continues_its_run(fake: Fake, folder: Path) -> None:
    report(fake.__name__, folder)
    first = json.loads((folder / KNOWN).read_text())[fake.__name__]
    report(fake.__name__, folder)
    again = fake.begun[1]
    assert again["resume"] == "allow"
    assert first in (again.get("id"), again["name"])
    assert json.loads((folder / KNOWN).read_text()) == {fake.__name__: first}


def test_a_training_that_is_refused_leaves_no_run(fake: Fake, folder: Path) -> None:
    report(fake.__name__, folder, RECORDS[:1])
    assert (fake.begun, fake.ended) == ([], [])
    assert not (folder / KNOWN).exists()


def test_a_training_that_fails_ends_its_run(fake: Fake, folder: Path) -> None:
    with pytest.raises(KeyError, match="step"):
        report(fake.__name__, folder, BROKEN)
    assert fake.ended == [{"exit_code": 1} if fake.__name__ == "wandb" else {}]


def test_a_tracker_that_cannot_begin_is_an_error_and_a_lost_one_a_warning(fake: Fake, folder: Path) -> None:
    fake.broken = {"init"}
    with pytest.raises(MetarepError, match="cannot begin a run: no network for init"):
        report(fake.__name__, folder)
    fake.broken = {"log"}
    with pytest.warns(TrackerWarning, match="does not take the figures any more .no network for log") as warned:
        report(fake.__name__, folder)
    assert len(warned) == 1, "once, and not for every step"


def test_tensorboard_gets_the_figures(folder: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    report("tensorboard", folder)
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [(each.step, each.value) for each in events.Scalars("loss")] == [(10, 2.0), (20, 1.5)]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow with its store of files."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    return mlflow.MlflowClient()


@pytest.mark.filterwarnings("ignore::FutureWarning:mlflow")
def test_mlflow_gets_the_settings_and_the_figures_of_a_training(store: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    line = ["train", "protonet", "--steps", "4", "--out", str(out), "--size", "16", "--width", "4", "--validate-every"]
    assert main([*line, "2", "--ways", "3", "--queries", "2", "--validation-tasks", "4", "--mlflow", "--json"]) == 0
    experiment = store.get_experiment_by_name("metarep")
    (run,) = store.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params["method"] == "protonet"
    assert run.data.params["train.steps"] == "4"
    logged = [json.loads(text) for text in (out / "log.jsonl").read_text().splitlines()]
    for name in ("loss", "accuracy"):
        own = [(each["step"], each[name]) for each in logged if name in each]
        assert own
        assert [(each.step, each.value) for each in store.get_metric_history(run.info.run_id, name)] == own


@pytest.mark.filterwarnings("ignore::FutureWarning:mlflow")
def test_mlflow_continues_a_run_and_marks_one_that_failed(store: Any, folder: Path) -> None:
    with pytest.raises(KeyError, match="step"):
        report("mlflow", folder, BROKEN)
    run = json.loads((folder / KNOWN).read_text())["mlflow"]
    assert store.get_run(run).info.status == "FAILED"
    report("mlflow", folder, RECORDS[2:])
    assert store.get_run(run).info.status == "FINISHED"
    assert [each.step for each in store.get_metric_history(run, "loss")] == [10, 20]
