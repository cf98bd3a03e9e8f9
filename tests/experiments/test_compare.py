"""metarep compare: everything it writes, on a data set so small that it takes seconds."""

import csv
import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from blobs import HOSTILE, tiny_data
from pages import Page

from metarep.cli import main
from metarep.data.datasets import load_dataset
from metarep.errors import LeakageError
from metarep.experiments.compare import Comparison, compare
from metarep.experiments.compare import measurements as measuring
from metarep.experiments.compare import trainings as training
from metarep.experiments.measurement.results import read
from metarep.weights.seen import digests
from metarep.weights.shipped import open_run

MACHINE = {"device": "cpu", "precision": "float32"}
FLAGS = ["--data", "tiny", "--tasks", "12", "--device", "cpu", "--precision", "float32"]
TRAIN = ["--methods", "protonet,maml", "--width", "4", "--budget", "0.2s"]
SHAPES = ["--ways", "3,5", "--shots", "1,2"]


class PulledError(Exception):
    """The interruption of a comparison."""


@pytest.fixture(scope="module", autouse=True)
def tiny():
    with tiny_data():
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compare") / "out"
    assert main(["compare", *FLAGS, *TRAIN, *SHAPES, "--out", str(out)]) == 0
    return out


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def fail(*_: Any, **__: Any) -> None:
    raise PulledError


@pytest.mark.slow
def test_every_entrant_solves_the_same_tasks(done: Path) -> None:
    rows = table(done / "results.csv")
    entrants = {"protonet", "maml", "untrained encoder", "raw pixels"}
    shapes = {(ways, shots) for ways in ("3", "5") for shots in ("1", "2")}
    assert {(row["method"], row["ways"], row["shots"]) for row in rows} == {(e, *s) for e in entrants for s in shapes}
    assert len({(row["ways"], row["shots"], row["digest"]) for row in rows}) == len(shapes)
    assert {row["queries"] for row in rows} == {"10"}, "12 images a class are too few for 15 queries"
    maml = next(row for row in rows if row["method"] == "maml")
    assert float(maml["train_seconds"]) > 0
    assert maml["trained_on"] == "tiny/train"
    assert 0 <= float(maml["worst_class"]) <= float(maml["accuracy"])
    pairs = table(done / "differences.csv")
    assert len(pairs) == 6 * len(shapes)
    assert all(float(pair["p"]) <= float(pair["p_holm"]) <= 1 for pair in pairs)
    found = {(row["method"], row["ways"], row["shots"]): float(row["accuracy"]) for row in rows}
    for pair in pairs:
        shape = pair["ways"], pair["shots"]
        difference = found[pair["one"], *shape] - found[pair["other"], *shape]
        assert float(pair["difference"]) == pytest.approx(difference, abs=1e-3)
    assert open_run(done / "runs" / "maml-tiny-0").learner.ways is None, "one training answers 3 and 5 ways"
    assert "| protonet |" in (done / "results.md").read_text()
    json.loads((done / "results.json").read_text(), parse_constant=fail)  # no NaN


@pytest.mark.slow
def test_the_page_is_one_file_that_says_it_all(done: Path) -> None:
    text = (done / "report.html").read_text()
    page = Page(text)
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base"}
    assert all("alt" in attrs for tag, attrs in page.tags if tag == "img")
    assert HOSTILE not in text
    said = " ".join("".join(page.text).split())
    assert "{{" not in said
    assert "None" not in said
    assert " nan" not in said
    for row in table(done / "results.csv"):
        assert row["digest"] in said
        assert f"{float(row['accuracy']):.1f} ± {float(row['ci95']):.1f}" in said
    assert "metarep compare --data tiny --methods protonet,maml --ways 3,5 --shots 1,2 --budget 0.2s" in said
    assert f"metarep evaluate {done}/runs/protonet-tiny-0 --data tiny --ways 3" in said
    assert len([tag for tag, attrs in page.tags if attrs.get("class") == "map"]) == 4
    for part in ("Accuracy against shots", "What accuracy does not say"):  # training time needs two validations
        assert part in said


@pytest.mark.slow
def test_the_same_command_repeats_nothing(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = table(done / "runs.csv")
    monkeypatch.setattr(training, "start_on", fail)
    monkeypatch.setattr(training, "pace_of", fail)
    real, made = measuring.measure, []
    monkeypatch.setattr(measuring, "measure", lambda *a, **k: made.append(a) or real(*a, **k))
    files = sorted((done / "measured").iterdir())
    files[0].unlink()
    files[1].write_text(files[1].read_text()[:-20])
    assert main(["compare", *FLAGS, *TRAIN, *SHAPES, "--out", str(done), "--json"]) == 0
    assert len(made) == 2, "one was lost and one is damaged"
    clock = ("seconds", "task_seconds")
    after = table(done / "runs.csv")
    assert [{**row, **dict.fromkeys(clock)} for row in after] == [{**row, **dict.fromkeys(clock)} for row in before]


@pytest.mark.slow
@pytest.mark.parametrize("pull", ["2 of 2", "1 of 2", "measuring maml"])
def test_an_interrupted_comparison_ends_as_a_whole_one(done: Path, tmp_path: Path, pull: str) -> None:
    plan = Comparison(
        ("tiny",), ("protonet", "maml"), ways=(range(3, 4), range(5, 6)), shots=(range(1, 2), range(2, 3)),
        budget=0.2, tasks=12, encoder={"name": "conv4", "width": 4},
    )  # fmt: skip
    shutil.copy(done / "budget.json", tmp_path)  # the steps depend on the clock
    shutil.copy(done / "compare.json", tmp_path)

    def watch(record: dict[str, Any]) -> None:
        if record["phase"].startswith(pull) and (record["step"] > 1 or "loss" in record):
            raise PulledError

    with pytest.raises(PulledError):
        compare(plan, tmp_path, **MACHINE, watch=watch)
    compare(plan, tmp_path, **MACHINE)
    name = ("method", "ways", "shots", "accuracy", "ci95", "digest")
    one, other = (table(folder / "runs.csv") for folder in (done, tmp_path))
    assert [[row[each] for each in name] for row in one] == [[row[each] for each in name] for row in other]


@pytest.mark.slow
def test_runs_instead_of_names(done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    for seed in (0, 1):
        run = open_run(done / "runs" / "protonet-tiny-0")
        record = replace(run.record, train=replace(run.record.train, seed=seed))
        (runs / f"mine-{seed}").mkdir(parents=True)
        replace(run, record=record).save(runs / f"mine-{seed}" / "model.safetensors")
    shutil.copytree(done / "runs" / "maml-tiny-0", runs / "other")
    given = [str(runs / name) for name in ("mine-0", "mine-1", "other")]
    assert main(["compare", *given, *FLAGS, *SHAPES, "--out", str(tmp_path / "out")]) == 0
    rows = table(tmp_path / "out" / "results.csv")
    before = {(row["method"], row["ways"], row["shots"]): row for row in table(done / "results.csv")}
    for row in rows:
        name = {"mine": "protonet", "other": "maml"}.get(row["method"], row["method"])
        if row["method"] in ("mine", "other", "raw pixels"):
            same = before[name, row["ways"], row["shots"]]
            assert (row["accuracy"], row["digest"]) == (same["accuracy"], same["digest"])
        assert row["seeds"] == ("2" if row["method"] in ("mine", "untrained encoder") else "1")
    assert "sd 0.00 of 2 seeds" in capsys.readouterr().out


@pytest.mark.slow
def test_a_head_of_fixed_ways_leaves_other_ways_empty(tmp_path: Path) -> None:
    fixed = [*TRAIN[:1], "maml", *TRAIN[2:], "--ways", "3"]
    assert main(["compare", *FLAGS, *fixed, "--out", str(tmp_path / "one")]) == 0
    run = tmp_path / "one" / "runs" / "maml-tiny-0"
    assert open_run(run).learner.ways == 3
    assert main(["compare", str(run), *FLAGS, *SHAPES, "--out", str(tmp_path / "two")]) == 0
    rows = table(tmp_path / "two" / "results.csv")
    assert {row["ways"] for row in rows if row["method"] == "maml-tiny-0"} == {"3"}
    assert "A dash: the head of the learner" in (tmp_path / "two" / "report.html").read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "there is nothing to compare; name methods to train with --methods protonet,simclr, or train all with"),
        (["--methods", "protnet"], "unknown method 'protnet'; did you mean 'protonet'?"),
        (["--methods", "maml,maml"], "maml is named twice among the methods"),
        (["--methods", "maml,omniglot-protonet"], "omniglot-protonet is a trained model and no method; name it first"),
        (["--methods", "maml", "--budget", "9s", "--recipes"], "give one of the two"),
        (["--methods", "maml", "--recipes"], "there is no recipe for maml on tiny; train by --budget 10m instead"),
        (["--methods", "maml", "--seeds", "0"], "seeds must be a number above 0, not 0"),
        (["--methods", "maml", "--train-on", "test"], "test classes are never trained on"),
        (["--methods", "maml", "--ways", "9"], "9-way 1-shot tasks with 1 queries need 9 classes"),
        (["--methods", "maml", "--tasks", "1"], "an accuracy needs at least 2 tasks, not 1"),
        (["no/such/run"], "unknown model or run folder 'no/such/run'"),
        (["omniglot-protonet", "--seeds", "3"], "are for trainings, and only trained runs are named; name what to"),
        (["omniglot-protonet", "--width", "3"], "--encoder and --width are for trainings"),
    ],
)
def test_wrong_input_is_one_line(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "--data", "tiny", *flags, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_run_that_knows_the_test_classes_is_refused(done: Path, tmp_path: Path) -> None:
    run = open_run(done / "runs" / "protonet-tiny-0")
    leaky = replace(run, seen=digests(load_dataset("tiny", "test").labels.keys))
    leaky.save(tmp_path / "leaky.safetensors")
    with pytest.raises(LeakageError, match=r"leaky\.safetensors: .* of tiny/test were seen in training"):
        compare(Comparison(("tiny",), runs=(str(tmp_path / "leaky.safetensors"),)), tmp_path / "out", **MACHINE)


@pytest.mark.slow
def test_a_folder_of_something_else_is_refused(done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = ["compare", *FLAGS, *TRAIN[:-1], "9s", "--out", str(done)]
    assert main(again) == 2
    assert f"{done} holds a comparison with budget = 0.2, not 9.0; choose another --out" in capsys.readouterr().err
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["compare", *FLAGS, *TRAIN, "--out", str(tmp_path)]) == 2
    assert f"{tmp_path} holds notes.txt and no comparison; choose another --out" in capsys.readouterr().err


@pytest.mark.slow
def test_tasks_are_exchanged_as_files(done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, file, out = str(next((done / "runs").iterdir())), tmp_path / "tasks.json", tmp_path / "out"
    flags = [run, "--device", "cpu", "--out"]
    drawn = [*FLAGS, "--ways", "3-5", "--save-tasks", str(file)]
    for _ in range(2):  # the same command again finds its own file
        assert main(["compare", *drawn, *flags, str(tmp_path / "first")]) == 0
    read = ["compare", "--data", "tiny", "--tasks", str(file)]
    assert main([*read, *flags, str(out)]) == 0
    wanted, found = table(tmp_path / "first" / "results.csv"), table(out / "results.csv")
    same = ("method", "ways", "shots", "queries", "tasks", "accuracy", "ci95", "digest")
    assert [[row[name] for name in same] for row in found] == [[row[name] for name in same] for row in wanted]
    assert f"--tasks {file} --out" in (out / "report.html").read_text()
    assert "--task-seed" not in (out / "report.html").read_text()
    other = tmp_path / "other.json"  # of the same shape, in the same folder: it is measured anew
    assert main(["compare", *drawn[:-1], str(other), "--task-seed", "2", *flags, str(tmp_path / "second")]) == 0
    assert main(["compare", "--data", "tiny", "--tasks", str(other), *flags, str(out)]) == 0
    assert table(out / "results.csv")[0]["digest"] not in {row["digest"] for row in wanted}
    capsys.readouterr()
    for wrong, message in (
        ([*read, "--ways", "3"], "--ways goes with tasks that are drawn"),
        (["compare", *drawn, "--task-seed", "2"], "is there already, and these tasks are not in it"),
        (["compare", *drawn, "--shots", "1,2"], "a file holds one set of tasks"),
        (["compare", "--data", "tiny,glyphs", "--tasks", str(file)], "a file of tasks is of one data set"),
    ):
        with suppress(SystemExit):
            assert main([*wrong, *flags, str(tmp_path / "third")]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_several_data_sets_are_ranked_and_only_as_far_as_they_can_be(done: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    run = str(done / "runs" / "protonet-tiny-0")
    plan = Comparison(("tiny", "glyphs"), runs=(run,), tasks=10, ways=(range(3, 4),), size=16)
    compared = compare(plan, tmp_path, **MACHINE)
    assert {place.data for place in compared.findings.places} == {"tiny", "glyphs"}
    assert compared.content["ranking"]["data_sets"] == 2
    assert "No two ranks can be as far apart" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_rows_go_into_a_table_of_results(done: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "out", tmp_path / "equal-time.csv"
    shutil.copytree(done, out)
    assert main(["compare", *FLAGS, *TRAIN, *SHAPES, "--out", str(out), "--results", str(file)]) == 0
    rows = read(file)
    assert len(rows) == 4 * 4
    recipes = {(row["method"], row["recipe"]) for row in rows}
    assert {("protonet", "compare --budget 0.2s"), ("maml", "compare --budget 0.2s"), ("raw pixels", "")} <= recipes
    lines = (out / "results.md").read_text().splitlines()
    assert lines[2].endswith("| rank | training | memory | parameters |")
    ranks = {row["method"]: float(row["rank"]) for row in table(out / "results.csv")}
    assert f"| {ranks['protonet']:.2f} |" in next(line for line in lines if line.startswith("| protonet |"))
