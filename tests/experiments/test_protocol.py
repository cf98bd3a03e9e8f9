"""The protocol: nothing is chosen or measured on classes that were trained on."""

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from metarep.cli import main
from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.encoders import Encoder
from metarep.errors import LeakageError, MetarepError
from metarep.experiments.job import Job
from metarep.experiments.measurement.measure import Setting
from metarep.experiments.recipes import Recipe
from metarep.experiments.reproduce import reproduce
from metarep.experiments.run_folder import RunFolder
from metarep.experiments.start import start
from metarep.machine.files import read_tensors
from metarep.methods import ProtoNet
from metarep.weights.checkpoint import Checkpoint, load_checkpoint
from metarep.weights.named import load_representation
from metarep.weights.record import DataRecord, RunRecord
from metarep.weights.seen import digests

Make = Callable[..., Encoder]
BRIEF = ("--steps", "2", "--validate-every", "1", "--validation-tasks", "5", "--width", "4", "--device", "cpu")
SIZE = 16


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three parts of three classes of eight drawings."""
    root, g = tmp_path_factory.mktemp("painted") / "my photos", np.random.default_rng(0)
    for part in ("train", "val", "test"):
        for name in "abc":
            (root / part / f"{part} {name}").mkdir(parents=True)
            shape = g.integers(0, 255, (4, 4))
            for number in range(8):
                noisy = np.kron(shape, np.ones((4, 4))) + g.integers(-9, 9, (SIZE, SIZE))
                pixels = noisy.clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / part / f"{part} {name}" / f"{number}.png")
    return root


@pytest.fixture
def place(painted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my photos").symlink_to(painted)
    return tmp_path


def run(method: str, out: str, *more: str) -> int:
    shape = ("--images", "12") if method == "simclr" else ("--queries", "2", "--shots", "2")
    return main(
        ["train", method, "--data", "folder:my photos", "--size", str(SIZE), "--out", out, *shape, *BRIEF, *more]
    )


@pytest.mark.slow
@pytest.mark.usefixtures("place")
def test_validation_classes_of_a_start_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """What a run has seen goes on to all that are based on it, by weights or by clusters, and on from those."""
    assert run("simclr", "seen", "--train-on", "trainval") == 0
    for way in (["--init", "seen"], ["--labels", "clusters:seen", "--clusters", "3"]):
        capsys.readouterr()
        assert run("protonet", "bad", *way) == 2
        assert not Path("bad").exists(), "what is refused leaves nothing"
        said = capsys.readouterr().err
        assert "3 of the 3 classes of folder:my photos/val were trained on, by this run or one it is based on" in said
        assert "take --train-on trainval" in said
    assert run("protonet", "second", "--init", "seen", "--train-on", "trainval") == 0
    assert run("protonet", "third", "--init", "second") == 2
    assert run("simclr", "fair") == 0
    assert run("protonet", "good", "--init", "fair") == 0
    good = load_checkpoint(Path("good/model.safetensors"))
    assert len(good.seen) == 6
    assert good.fitted is not None
    assert len(good.fitted) == 3
    capsys.readouterr()

    def evaluate(run: str, *more: str) -> int:
        shape = ("--ways", "3", "--queries", "2", "--tasks", "5", "--no-references", "--size", str(SIZE))
        return main(["evaluate", run, *shape, *more])

    named = ("--data", "folder:my photos")
    assert [evaluate("good", "--split", "val", *more) for more in ((), named, (*named, "--learner", "linear"))] == [
        0
    ] * 3
    assert [evaluate("second", "--split", "val", *more) for more in ((), named)] == [2, 2]
    assert [evaluate("good", "--split", part, *named) for part in ("train", "trainval", "all")] == [2, 2, 2]
    load_representation("good").save(Path("copy.safetensors"))
    assert load_checkpoint(Path("copy.safetensors")).fitted == good.fitted


@pytest.mark.slow
@pytest.mark.usefixtures("place")
def test_reproduce_shares_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = {"steps": 1, "ways": 2, "shots": 1, "queries": 2, "validation_tasks": 5}
    job = {"data": "folder:my photos", "size": SIZE, "encoder": {"name": "conv4", "width": 4}, "train": shape}
    recipe = Recipe("protonet-mine", "protonet", "", "", job, ({"ways": 2, "shots": 1, "tasks": 5},))
    monkeypatch.setattr("metarep.experiments.reproduce.load_recipe", lambda _: recipe)
    monkeypatch.setattr("metarep.experiments.reproduce.Setting", partial(Setting, queries=2))
    chosen = partial(reproduce, "protonet-mine", Path("runs"), Path("results"), train_on="train", device="cpu")
    assert {row["split"] for row in chosen()} == {"val"}
    path = Path("runs/protonet-mine-train-0/model.safetensors")
    known = load_checkpoint(path)
    replace(known, fitted=known.seen).save(path)  # as if it had been fitted to all
    monkeypatch.setattr("metarep.experiments.reproduce.start", lambda *_, **__: (load_checkpoint(path), None))
    with pytest.raises(LeakageError, match="3 of the 3 classes of folder:my photos/val were trained on"):
        chosen()


def test_older_runs_count_all_their_classes_as_fitted_unless_it_is_certain(small_encoder: Make) -> None:
    """A file of 0.1.0 does not say what it was fitted to: all it has seen, but for a run of its own on ``train``."""
    labels = Labels.of(["a", "b"], "here")
    seen = digests([*labels.keys, "here/c"])

    def old(split: str = "train", init: str = "", clustered_by: str = "") -> Checkpoint:
        data = DataRecord("mine", split, clustered_by=clustered_by)
        return Checkpoint.of(ProtoNet(small_encoder()), RunRecord("protonet", data=data, init=init), seen)

    old().refuse_leak(labels, "mine/val", "mine", "val")
    assert old().fitted_of(labels, "mine") == digests(["here/c"])
    for run, data in (
        (old(), "other"),
        (old(init="another"), "mine"),
        (old("trainval"), "mine"),
        (old(clustered_by="another"), "mine"),
    ):
        with pytest.raises(LeakageError, match=r"2 of the 2 classes of mine/val were trained on.*\(a, b\)"):
            run.refuse_leak(labels, "mine/val", data, "val")
    with pytest.raises(LeakageError, match="were seen in training"):
        old().refuse_leak(labels, "mine/test", "mine", "test")


def test_a_run_keeps_what_it_had_seen_when_it_is_resumed(small_encoder: Make, tmp_path: Path) -> None:
    """Also where what it started from is another run by now, which has seen less."""
    with (run := RunFolder(tmp_path, RunRecord("protonet"), ["a", "b"], ["a"])).held():
        run.save_state({}, {"step": 1})
    with (run := RunFolder(tmp_path, RunRecord("protonet"), ["c"], ["c"])).held():
        run.load_state()
        run.save_model(ProtoNet(small_encoder()))
    header = read_tensors(tmp_path / "model.safetensors")[1]
    assert (header["seen"], header["fitted"]) == (["a", "b", "c"], ["a", "c"])


@pytest.mark.slow
@pytest.mark.usefixtures("place")
def test_a_run_that_goes_on_is_validated_as_it_began(capsys: pytest.CaptureFixture[str]) -> None:
    """An earlier version validated on one shot by default; the same command goes on with such a run."""
    assert run("protonet", "out", "--validation-shots", "1") == run("protonet", "out") == 0
    assert json.loads(Path("out/settings.json").read_text())["train"]["validation_shots"] == 1
    assert capsys.readouterr().out.count("(validation 3-way 1-shot: ") == 2
    assert run("protonet", "out", "--validation-shots", "2") == 2
    assert "holds a run with train.validation_shots = 1, not 2" in capsys.readouterr().err


def fail(monkeypatch: pytest.MonkeyPatch, what: Callable[[], Any]) -> None:
    """Do it where every first step fails."""

    def step(*_: Any, **__: Any) -> Any:
        raise MetarepError("the loss is nan")

    with monkeypatch.context() as patch:
        patch.setattr(ProtoNet, "step", step)
        assert what() == 2


@pytest.mark.slow
@pytest.mark.usefixtures("place")
def test_a_refused_training_leaves_the_folder_to_the_corrected_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("protonet", "out", "--ways", "7") == 2
    assert not Path("out").exists()
    fail(monkeypatch, lambda: run("protonet", "out", "--lr", "1"))
    assert json.loads(Path("out/settings.json").read_text())["train"]["lr"] == 1
    assert run("protonet", "out") == 0, "nothing was saved, so the next one takes the folder"
    assert json.loads(Path("out/settings.json").read_text())["train"]["lr"] == 3e-3
    told = capsys.readouterr().out
    assert "(validation 3-way 2-shot: " in told
    assert told.endswith("next: metarep evaluate out --ways 3 --queries 5\n")


@pytest.mark.filterwarnings("ignore:.*a task takes up to:UserWarning")  # these data sets are tiny
@pytest.mark.slow
@pytest.mark.usefixtures("place")
def test_next_is_printed_where_it_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("protonet", "my run", "--data-dir", ".") == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == "next: metarep evaluate 'my run' --ways 3 --queries 5 --data-dir ."
    assert main([*shlex.split(line)[2:], "--tasks", "5"]) == 0
    for part in ("train", "val"):
        Path(f"few/{part}").mkdir(parents=True)
        for name in "abc":
            Path(f"few/{part}/{part} {name}").symlink_to(Path(f"my photos/{part}/{part} {name}").resolve())
    capsys.readouterr()
    assert (
        main(["train", "protonet", "--data", "folder:few", "--size", "16", "--out", "b", "--queries", "2", *BRIEF]) == 0
    )
    assert "next:" not in capsys.readouterr().out, "there are no test classes"


@pytest.mark.slow
@pytest.mark.usefixtures("place")
def test_clusters_of_a_training_that_failed_at_once_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two runs of one name the first was wrong: its division lies in the folder, and is not asked again."""

    def clustered(out: str, by: str) -> int:
        shape = ("--clusters", "7", "--queries", "1", "--shots", "1", "--ways", "2")
        return run("protonet", out, "--labels", f"clusters:{by}", *shape)

    def division(out: str) -> torch.Tensor:
        return read_tensors(Path(out) / "clusters.safetensors")[0]["clusters"]

    for seed in ("0", "1"):
        assert run("simclr", f"{seed}/start", "--seed", seed) == 0
    fail(monkeypatch, lambda: clustered("out", "0/start"))
    wrong = division("out")
    assert clustered("out", "1/start") == clustered("whole", "1/start") == 0
    assert torch.equal(division("out"), division("whole"))
    assert not torch.equal(wrong, division("whole"))


def test_start_refuses_what_it_cannot_do_before_it_makes_anything(
    drawings: tuple[Split, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metarep.experiments.start.load_dataset", lambda data, part, **_: drawings[part == "val"])
    job = Job("protonet", train={"steps": 2, "ways": 500}, encoder={"name": "conv4", "width": 4})
    with pytest.raises(MetarepError, match="need 500 classes"):
        start(job, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with (run := RunFolder(tmp_path / "run", RunRecord("another"), [])).held():
        run.save_state({}, {"step": 1})
    with pytest.raises(MetarepError, match="holds a run with"):
        start(Job("protonet", train={"steps": 2}, encoder={"name": "conv4", "width": 4}), tmp_path / "run")
