"""From a trained run to rows of a result table: what is measured, on which tasks, and what the row says of it."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
from torch import Generator

from metarep.data.split import Split
from metarep.data.tasks import draw_tasks
from metarep.encoders import Encoder
from metarep.errors import LeakageError, MetarepError
from metarep.experiments.measurement.evaluation import evaluate
from metarep.experiments.measurement.measure import Setting, measure, measure_all, pick_learner
from metarep.experiments.measurement.references import raw_pixels, untrained
from metarep.experiments.measurement.results import read
from metarep.experiments.measurement.rows import result_row
from metarep.experiments.recipes import Recipe
from metarep.experiments.reproduce import reproduce
from metarep.learners import Neighbours, Prototypes
from metarep.methods import ProtoNet
from metarep.weights.checkpoint import Checkpoint
from metarep.weights.record import DataRecord, RunRecord
from metarep.weights.shipped import open_run

Drawings = tuple[Split, Split]
Make = Callable[..., Encoder]
RECIPE = Recipe(
    "protonet-drawings",
    "protonet",
    "blots",
    "somebody",
    {
        "data": "drawings:few",
        "encoder": {"name": "conv4", "width": 4},
        "train": {"steps": 2, "ways": 4, "shots": 1, "queries": 2, "validate_every": 1, "validation_tasks": 10},
    },
    ({"ways": 5, "shots": 1, "published": 50.0}, {"ways": 5, "shots": 2, "published": 60.0}, {"ways": 3, "shots": 1}),
)


def one(ways: int, shots: int, **more: int) -> Setting:
    return Setting(range(ways, ways + 1), range(shots, shots + 1), **more)


def test_a_measurement_is_of_the_tasks_of_its_setting(drawings: Drawings, small_encoder: Make) -> None:
    split, learner = drawings[1], Prototypes(small_encoder())
    tasks = draw_tasks(split.labels, 20, ways=4, shots=2, queries=3, generator=Generator().manual_seed(7))
    report = measure(learner, split, one(4, 2, queries=3, tasks=20, seed=7))
    assert (report.digest, report.split) == (tasks.digest, split.name)
    assert report.per_task.tolist() == evaluate(learner, split.bank, tasks).per_task.tolist()
    varied = measure(learner, split, Setting(range(3, 6), range(1, 3), queries=3, tasks=60))
    assert (varied.ways, varied.shots, varied.tasks) == ("3-5", "1-2", 60)


@pytest.mark.slow
def test_references_stand_on_the_same_tasks_and_have_learned_nothing(drawings: Drawings, small_encoder: Make) -> None:
    split, learner = drawings[1], Prototypes(small_encoder(seed=5))
    settings = [one(5, 1, tasks=50), one(5, 3, tasks=50)]
    rows = list(measure_all(learner, split, settings, references=True))
    names = ["trained", "untrained encoder", "raw pixels"]
    assert [name for name, _ in rows] == names * 2
    assert len({report.digest for _, report in rows[:3]}) == 1
    expected = [learner, untrained(learner.encoder), raw_pixels(learner.encoder.preprocess)]
    for (_, report), each in zip(rows, expected * 2, strict=True):
        tasks = draw_tasks(
            split.labels, 50, ways=5, shots=int(report.shots), queries=15, generator=Generator().manual_seed(1)
        )
        assert report.accuracy == evaluate(each, split.bank, tasks).accuracy
    assert len({report.accuracy for _, report in rows}) == 6
    assert [name for name, _ in measure_all(learner, split, settings, references=False)] == ["trained"] * 2


def test_a_row_says_what_was_trained_and_how(drawings: Drawings, small_encoder: Make) -> None:
    record = RunRecord("protonet", data=DataRecord("drawings:few", "trainval"))
    trained = Checkpoint.of(ProtoNet(small_encoder()).eval(), record, [])
    report = measure(trained.learner, drawings[1]._replace(name="drawings:few/test"), one(4, 1, tasks=10))
    row = result_row(trained, "trained", report, "a run", source="somebody", recipe="mine")
    told = {"method": "protonet", "data": "drawings:few", "split": "test", "trained_on": "drawings:few/trainval"}
    told |= {"labels": "true", "init": "random", "encoder": "conv4-16", "recipe": "mine", "source": "somebody"}
    told |= {"accuracy": report.accuracy, "digest": report.digest, "normalisation": "running", "protocol": "inductive"}
    assert row | told == row
    for name, encoder in (("untrained encoder", "conv4-16"), ("raw pixels", "none")):
        row = result_row(trained, name, report, "a run")
        told = {"method": name, "trained_on": "", "labels": "none", "recipe": "", "encoder": encoder}
        assert row | told == row


def test_another_learner_gets_the_trained_encoder(small_encoder: Make) -> None:
    trained = Checkpoint.of(ProtoNet(small_encoder()), RunRecord("protonet"), [])
    assert pick_learner(trained, None) is trained.learner
    other = pick_learner(trained, "neighbours")
    assert isinstance(other, Neighbours)
    assert other.encoder is trained.learner.encoder
    with pytest.raises(MetarepError, match="unknown learner 'neighbour'; did you mean 'neighbours'"):
        pick_learner(trained, "neighbour")


@pytest.fixture
def loaded(drawings: Drawings, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts that were loaded, in order; ``RECIPE`` and the drawings stand where data sets and recipes are."""
    parts: list[str] = []

    def load(spec: str, split: str, **_: Any) -> Split:
        parts.append(split)
        return drawings[split not in ("train", "trainval")]._replace(name=f"{spec}/{split}")

    monkeypatch.setattr(sys.modules[reproduce.__module__], "load_dataset", load)
    monkeypatch.setattr(sys.modules[reproduce.__module__], "load_recipe", lambda name: RECIPE)
    monkeypatch.setattr("metarep.experiments.start.load_dataset", load)
    return parts


@pytest.mark.slow
def test_a_recipe_is_the_mean_of_its_trainings(loaded: list[str], drawings: Drawings, tmp_path: Path) -> None:
    rows = reproduce(RECIPE.name, tmp_path / "runs", tmp_path / "results", seeds=2, tasks=40)
    assert loaded == ["trainval", "test"] * 2
    folders = [tmp_path / "runs" / f"{RECIPE.name}-trainval-{seed}" for seed in range(2)]
    assert [json.loads((folder / "settings.json").read_text())["train"]["seed"] for folder in folders] == [0, 1]
    learners = [open_run(folder).learner for folder in folders]
    own = [row for row in rows if row["method"] == "protonet"]
    assert [(row["ways"], row["shots"], row["published"]) for row in own] == [
        ("5", "1", 50.0), ("5", "2", 60.0), ("3", "1", ""),
    ]  # fmt: skip
    for row in own:
        reports = [measure(each, drawings[1], one(int(row["ways"]), int(row["shots"]), tasks=40)) for each in learners]
        accuracies = [report.accuracy for report in reports]
        assert len(set(accuracies)) > 1
        assert (row["accuracy"], row["seed_sd"]) == pytest.approx((mean(accuracies), stdev(accuracies)))
        assert (row["seeds"], row["ci95"], row["tasks"]) == (2, reports[0].ci95, 40)
        assert (row["recipe"], row["source"], row["split"]) == (RECIPE.name, "somebody", "test")
    references = [row for row in rows if row["method"] != "protonet"]
    assert [row["method"] for row in references] == ["untrained encoder", "raw pixels"] * 3
    assert all(row["seeds"] == 1 and "published" not in row for row in references)
    assert len(read(tmp_path / "results" / "drawings.csv")) == len(rows) == 9


@pytest.mark.slow
def test_a_recipe_can_start_from_another_learn_from_it_and_cluster_by_it(
    loaded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other's run is trained once, finished if it was interrupted, and named by its recipe in the rows."""
    module = sys.modules[reproduce.__module__]
    base = replace(
        RECIPE,
        name="simclr-drawings",
        method="simclr",
        job={**RECIPE.job, "train": {"steps": 2, "images": 16, "validate_every": 1, "validation_tasks": 10}},
    )
    based = {
        "from": replace(RECIPE, name="from", job={**RECIPE.job, "init": base.name, "labels_per_class": 6}),
        "taught": replace(RECIPE, name="taught", job={**RECIPE.job, "teacher": base.name}),
        "by": replace(RECIPE, name="by", job={**RECIPE.job, "labels": f"clusters:{base.name}", "clusters": 30}),
    }
    recipes = {base.name: base, **based}
    monkeypatch.setattr(module, "load_recipe", recipes.__getitem__)
    monkeypatch.setattr(module, "recipe_names", lambda: list(recipes))
    rows = reproduce("from", tmp_path / "runs", tmp_path / "results", tasks=10)
    own = [row for row in rows if row["method"] == "protonet"]
    assert {(row["init"], row["labels"]) for row in own} == {(base.name, "6-a-class")}
    assert {row["init"] for row in rows if row["method"] == "untrained encoder"} == {"random"}
    model = tmp_path / "runs" / f"{base.name}-trainval-0" / "model.safetensors"
    before = model.stat().st_mtime_ns
    for state in model.parent.glob("*state.safetensors"):  # as small runs may
        state.unlink()
    rows = reproduce("by", tmp_path / "runs", tmp_path / "results", tasks=10)
    assert {(row["init"], row["labels"]) for row in rows if row["method"] == "protonet"} == {("random", "clusters")}
    rows = reproduce("taught", tmp_path / "runs", tmp_path / "results", tasks=10)
    assert {row["init"] for row in rows if row["method"] == "protonet"} == {f"random, taught by {base.name}"}
    assert model.stat().st_mtime_ns == before, "it was there"
    rows = reproduce("from", tmp_path / "runs", tmp_path / "results", seeds=2, tasks=10)
    assert (tmp_path / "runs" / f"{base.name}-trainval-1" / "model.safetensors").exists()


@pytest.mark.slow
def test_choosing_on_validation_never_sees_the_test_classes(loaded: list[str], tmp_path: Path) -> None:
    rows = reproduce(RECIPE.name, tmp_path / "runs", tmp_path / "results", train_on="train", tasks=10)
    assert loaded == ["train", "val", "val"]
    assert {row["split"] for row in rows} == {"val"}


def test_a_recipe_is_never_measured_on_what_it_was_trained_on(
    loaded: list[str], drawings: Drawings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[reproduce.__module__], "load_dataset", lambda *_, **__: drawings[0])
    with pytest.raises(LeakageError, match="40 of the 40 classes of drawings/train were seen in training"):
        reproduce(RECIPE.name, tmp_path / "runs", tmp_path / "results", tasks=10)
    assert not (tmp_path / "results").exists()
