"""Comparisons and measurements of features that other programs have computed."""

import json
from pathlib import Path

import numpy as np
import pytest

from metarep.cli import main
from metarep.errors import DataError, MetarepError
from metarep.experiments.compare import Comparison, compare
from metarep.experiments.measurement.features import evaluate_features
from metarep.experiments.measurement.results import read

FEW = {"ways": (range(5, 6),), "shots": (range(1, 2),), "queries": 5, "tasks": 60}


@pytest.fixture
def arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Features of the same 20 classes of 30 images, once with little noise and once with much."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    labels = np.repeat([f"class {i:02d}" for i in range(20)], 30)
    means = generator.normal(size=(20, 8))[np.repeat(np.arange(20), 30)]
    for name, noise in (("clear", 0.5), ("noisy", 2.0)):
        features = means + noise * generator.normal(size=(600, 8))
        np.savez(tmp_path / f"{name}.npz", features=features, labels=labels, training=features[:50])
    return tmp_path


def test_features_are_compared_on_the_same_tasks(arrays: Path) -> None:
    found = compare(Comparison(("features",), runs=("noisy.npz", "clear.npz"), **FEW), arrays / "out")
    (place,) = found.findings.places
    assert [each.name for each in found.findings.entrants] == ["clear", "noisy"]
    with np.load("clear.npz") as file:
        alone = evaluate_features(file["features"], file["labels"], queries=5, tasks=60)
    cell = found.findings.cell("clear", place)
    assert cell is not None
    assert cell.accuracy == pytest.approx(alone.accuracy)
    pair = found.findings.pair("clear", "noisy", place)
    assert pair is not None
    assert pair.significant
    page = (arrays / "out" / "report.html").read_text()
    assert "Two features files were given." in page
    assert "raw pixels" not in page
    digests = {row["digest"] for row in found.content["runs"]}
    assert digests == {alone.digest}


def test_several_learners_make_several_rows(arrays: Path) -> None:
    learners = ("prototypes", "bd-cspn", "simpleshot:power=0.5")
    plan = Comparison(("features",), runs=("noisy.npz",), learners=learners, balance="dirichlet", **FEW)
    rows = compare(plan, arrays / "out").content["runs"]
    assert [(row["learner"], row["protocol"]) for row in rows] == [
        ("prototypes", "inductive, dirichlet"),
        ("bd-cspn", "transductive, dirichlet"),
        ("simpleshot:power=0.5", "inductive, dirichlet"),
    ]


def test_a_run_takes_other_learners_too(tmp_path: Path) -> None:
    few = FEW | {"tasks": 20, "queries": 2}
    plan = Comparison(("glyphs",), runs=("omniglot-protonet",), learners=("prototypes", "bd-cspn"), **few)
    names = {each.name for each in compare(plan, tmp_path / "out", device="cpu").findings.entrants}
    assert names >= {"omniglot-protonet, prototypes", "omniglot-protonet, bd-cspn"}


def test_files_that_do_not_belong_together_are_refused(arrays: Path) -> None:
    with np.load("clear.npz") as file:
        np.savez("short.npz", features=file["features"][:-1], labels=file["labels"][:-1])
        np.savez("turned.npz", features=file["features"], labels=file["labels"][::-1])
    for other, message in (
        ("short.npz", "short.npz has 599 images, and clear.npz has 600; give the same images"),
        ("turned.npz", "turned.npz and clear.npz differ in the label of image 0; give the same images in one order"),
    ):
        with pytest.raises(DataError, match=message):
            compare(Comparison(("features",), runs=("clear.npz", other), **FEW), arrays / "out")
    with pytest.raises(MetarepError, match="files of features are compared with each other alone"):
        compare(Comparison(("features",), runs=("clear.npz", "omniglot-protonet"), **FEW), arrays / "out")
    with pytest.raises(MetarepError, match="other learners are for runs that are trained already"):
        Comparison(("glyphs",), methods=("protonet",), learners=("bd-cspn",))


def test_tasks_and_rows_of_features_go_through_files(arrays: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = [
        "evaluate",
        "--features",
        "clear.npz",
        "--tasks",
        "50",
        "--queries",
        "5",
        "--results",
        "rows.csv",
        "--json",
    ]
    assert main([*first, "--save-tasks", "tasks.json"]) == 0
    (drawn,) = json.loads(capsys.readouterr().out)
    for name, learner in (("clear.npz", "prototypes"), ("noisy.npz", "linear:centre=true"), ("noisy.npz", "linear")):
        flags = ["--tasks", "tasks.json", "--learner", learner, "--results", "rows.csv", "--json"]
        assert main(["evaluate", "--features", name, *flags]) == 0
        (row,) = json.loads(capsys.readouterr().out)
        assert row["digest"] == drawn["digest"]
    rows = [(row["data"], row["learner"]) for row in read(Path("rows.csv"))]
    assert sorted(rows) == [("clear", "prototypes"), ("noisy", "linear"), ("noisy", "linear:centre=true")]
