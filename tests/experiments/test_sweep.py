"""Sweeps: what is tried, how trials are chosen, pruned, interrupted and shared, and the recipe at the end."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna", reason="a sweep needs optuna: pip install 'metarep[sweep]'")

from metarep.cli import main
from metarep.cli.config import read_config
from metarep.cli.over import read_space
from metarep.errors import MetarepError
from metarep.experiments.job import Job
from metarep.experiments.readings import DivergedError
from metarep.experiments.run_folder import read_record
from metarep.experiments.sweep.report import recipe_text
from metarep.experiments.sweep.space import Choice, Range, check_space, with_values
from metarep.experiments.sweep.sweep import sweep
from metarep.experiments.training import Outcome

TINY = ["--steps", "4", "--ways", "8", "--queries", "3", "--validate-every", "2"]
TINY += ["--validation-tasks", "20", "--size", "16"]
LR = {"lr": Range(1e-4, 1e-2, log=True)}


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ("lrr=1,2", "unknown setting of protonet 'lrr'; did you mean 'lr'?"),
        ("margin=0.1,0.2", "unknown setting of protonet 'margin'"),
        ("lr", "--over 'lr' is not NAME=VALUES; write lr=1e-4..1e-2:log"),
        ("lr=1e-2..1e-4", "--over lr=1e-2..1e-4: a range goes from a number to a larger one, not from 0.01 to 0.0001"),
        ("lr=0..1:log", "a logarithmic range begins above 0, not at 0"),
        ("lr=1e-4..1e-2:lin", "a range ends with :log or with its upper bound, not with :lin"),
        ("lr=fast,slow", "lr must be a number, not 'fast'"),
        ("width=32.5,64", "width must be a whole number, not '32.5'"),
        ("width=32", "a sweep needs at least two different values, not 32"),
        ("lr=-1,0.1", "lr cannot be -1.0: lr must be a finite number above 0"),
        ("schedule=cosin,linear", "unknown value of schedule 'cosin'; did you mean 'cosine'?"),
        ("schedule=a..b", "unknown value of schedule 'a'"),
        ("seed=1,2", "a seed is not a setting to choose; train each with --seeds 3"),
        ("validation-shots=1,5", "validation_shots must be the same in all trials"),
    ],
)
def test_a_wrong_space_is_named(
    over: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "protonet", "--over", over]) == 2
    assert words in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_a_space_is_read() -> None:
    given = ["lr=1e-4..1e-2:log", "turns=1..4", "schedule=cosine,linear", "--clip=0,1", "encoder=conv4,resnet12"]
    assert read_space("protonet", given) == {
        **LR,
        "turns": Range(1, 4),
        "schedule": Choice(("cosine", "linear")),
        "clip": Choice((0.0, 1.0)),
        "encoder": Choice(("conv4", "resnet12")),
    }
    assert read_space("triplet", ["margin=none,0.2"]) == {"margin": Choice((None, 0.2))}
    assert with_values(Job("protonet"), {"width": 8, "encoder": "resnet12"}).encoder == {"name": "resnet12", "width": 8}
    with pytest.raises(MetarepError, match="train_on=trainval has none; take train_on='train'"):
        check_space(Job("protonet", train_on="trainval"), LR)
    with pytest.raises(MetarepError, match="at least one setting to try"):
        check_space(Job("protonet"), {})


class Trainer:
    """Takes the place of ``start``: a training whose accuracy is that of ``curve(job, step)``."""

    def __init__(self, curve: Callable[[Job, int], float]) -> None:
        self.curve = curve
        self.trained: list[tuple[str, int]] = []  # folders, and the steps that they have reached

    def __call__(self, job: Job, out: Path, *, watch: Any, **machine: Any) -> tuple[None, Outcome]:
        accuracy = 0.0
        for step in (2, 4):
            accuracy = self.curve(job, step)
            self.trained.append((out.name, step))
            watch({"step": step, "steps": 4, "accuracy": accuracy, "ci95": 1.0})
        return None, Outcome(4, accuracy, 1.0, "20-way 1-shot")


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    made = Trainer(lambda job, step: 1000 * job.train["lr"] + job.train["seed"])
    monkeypatch.setattr("metarep.experiments.sweep.sweep.start", made)
    monkeypatch.setattr("metarep.experiments.sweep.sweep.write_plot", lambda *_: None)  # it takes most of the time
    return made


@pytest.mark.slow
def test_the_highest_mean_over_seeds_is_chosen(trainer: Trainer, tmp_path: Path) -> None:
    swept = sweep(Job("protonet", train={"seed": 5}), tmp_path, LR, seeds=2, trials=3, prune=False)
    assert [row["state"] for row in swept.rows] == ["done"] * 3
    assert {name for name, _ in trainer.trained} == {f"trial-000{i}-seed-{seed}" for i in range(3) for seed in (5, 6)}
    assert swept.best is not None
    assert swept.best["lr"] == max(row["lr"] for row in swept.rows)
    assert swept.best["accuracy"] == pytest.approx(1000 * swept.best["lr"] + 5.5)
    assert swept.best["seed_sd"] == pytest.approx(0.5**0.5)
    with (tmp_path / "trials.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert [float(row["lr"]) for row in rows] == pytest.approx([row["lr"] for row in swept.rows], rel=1e-5)
    assert rows[0]["validated_on"] == "val, 20-way 1-shot"
    assert not swept.label_free
    done = len(trainer.trained)
    assert sweep(Job("protonet", train={"seed": 5}), tmp_path, LR, seeds=2, trials=3).rows == swept.rows
    assert len(trainer.trained) == done, "three trials are done, so nothing is trained again"
    with pytest.raises(MetarepError, match="is a sweep with seeds = 2, not 3; choose another out"):
        sweep(Job("protonet", train={"seed": 5}), tmp_path, LR, seeds=3)


@pytest.mark.slow
def test_choices_alone_are_searched_completely(trainer: Trainer, tmp_path: Path) -> None:
    space = {"lr": Choice((0.01, 0.02)), "turns": Choice((1, 2, 3))}
    rows = sweep(Job("protonet"), tmp_path, space, prune=False).rows
    assert {(row["lr"], row["turns"]) for row in rows} == {(lr, turns) for lr in (0.01, 0.02) for turns in (1, 2, 3)}
    assert len(rows) == 6


@pytest.mark.slow
def test_an_interrupted_trial_is_run_again_with_the_same_values(trainer: Trainer, tmp_path: Path) -> None:
    def stop(record: dict[str, Any]) -> None:
        if len(trainer.trained) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(Job("protonet"), tmp_path / "a", LR, trials=3, watch=stop)
    assert trainer.trained[-1] == ("trial-0001-seed-0", 2)
    rows = sweep(Job("protonet"), tmp_path / "a", LR, trials=3).rows
    assert [row["folder"] for row in rows] == ["trial-0000", "trial-0001", "trial-0002"]
    assert trainer.trained[3:5] == [("trial-0001-seed-0", 2), ("trial-0001-seed-0", 4)]
    whole = sweep(Job("protonet"), tmp_path / "b", LR, trials=3).rows
    assert [row["lr"] for row in rows] == [row["lr"] for row in whole], "as without the interruption"


@pytest.mark.parametrize(("silence", "again"), [(0.0, False), (1e4, True)])
@pytest.mark.slow
def test_a_trial_of_another_machine_is_run_again_after_a_long_silence(
    trainer: Trainer, tmp_path: Path, silence: float, again: bool
) -> None:
    from optuna import load_study

    sweep(Job("protonet"), tmp_path, LR, trials=1)
    trial = load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'study.db'}").ask()
    for name, value in {"beat": time.time() - silence, "rank": 1, "at": "another:/out"}.items():
        trial.set_user_attr(name, value)
    lr = trial.suggest_float("lr", 1e-4, 1e-2, log=True)
    rows = sweep(Job("protonet"), tmp_path, LR, trials=2).rows
    assert [(row["folder"], row["state"]) for row in rows[1:]] == [("trial-0001", "done" if again else "running")]
    assert rows[1]["lr"] == lr
    if again:
        with pytest.raises(RuntimeError, match="can not be updated"):
            trial.report(50.0, 2)


@pytest.mark.slow
def test_a_trial_below_the_median_is_pruned(trainer: Trainer, tmp_path: Path) -> None:
    """The accuracies fall from trial to trial, so each is below the median as soon as there is one."""
    trainer.curve = lambda job, step: 90.0 - len(trainer.trained)
    rows = sweep(Job("protonet"), tmp_path, LR, trials=6).rows
    assert [row["state"] for row in rows] == ["done"] * 4 + ["pruned"] * 2
    assert (rows[4]["step"], rows[4]["accuracy"]) == (2, 82.0)
    assert ("trial-0004-seed-0", 4) not in trainer.trained


@pytest.mark.slow
def test_a_diverged_trial_has_failed_and_another_error_ends_the_sweep(trainer: Trainer, tmp_path: Path) -> None:
    """The trial of another error is tried once more, because the reason may be gone."""
    errors: list[MetarepError] = [DivergedError("the loss is nan at step 3")]

    def fail(job: Job, step: int) -> float:
        if len(trainer.trained) >= 2 and errors:
            raise errors.pop()
        return 50.0

    trainer.curve = fail
    rows = sweep(Job("protonet"), tmp_path / "a", LR, trials=3).rows
    assert [row["state"] for row in rows] == ["done", "failed", "done"]
    assert rows[1]["reason"] == "the loss is nan at step 3"
    errors.append(MetarepError("no such data"))
    with pytest.raises(MetarepError, match="no such data"):
        sweep(Job("protonet"), tmp_path / "a", LR, trials=4)
    errors.append(MetarepError("still no such data"))
    rows = sweep(Job("protonet"), tmp_path / "a", LR, trials=5).rows
    assert [row["state"] for row in rows[3:]] == ["failed", "done"]
    assert rows[3]["reason"] == "still no such data"


@pytest.mark.slow
def test_a_budget_ends_the_sweep_and_its_trial_goes_on_later(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = type("Clock", (), {"monotonic": lambda: 400.0 * len(trainer.trained)})
    monkeypatch.setattr("metarep.experiments.sweep.sweep.time", clock)
    swept = sweep(Job("protonet"), tmp_path, LR, budget=1000)
    assert [row["state"] for row in swept.rows] == ["done", "running"]
    assert [row["state"] for row in sweep(Job("protonet"), tmp_path, LR, trials=2).rows] == ["done", "done"]


@pytest.mark.slow
def test_the_recipe_is_trained_as_the_best_trial_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "sweep")
    over = ["--over", "lr=1e-3..1e-1:log", "--over", "width=8,16"]
    assert main(["sweep", "protonet", *over, *TINY, "--trials", "2", "--out", out]) == 0
    said = capsys.readouterr().out
    assert "chosen by labels of validation classes (val, 20-way 1-shot)" in said
    assert "itself reads no true labels" not in said
    assert f"next: metarep train protonet --config {out}/best.toml" in said
    assert said.splitlines()[0].split() == ["trial", "accuracy", "lr", "width", "state"]
    assert (tmp_path / "sweep" / "trials.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    again = str(tmp_path / "again")
    assert main(["train", "protonet", "--config", f"{out}/best.toml", "--out", again]) == 0
    assert main(["sweep", "protonet", *over, *TINY, "--trials", "2", "--out", out, "--json"]) == 0
    best = json.loads(capsys.readouterr().out.partition("{")[2].join(("{", "")))["best"]
    record = read_record(Path(again) / "settings.json")
    first = tmp_path / "sweep" / f"{best['folder']}-seed-0"
    assert not record.differences(json.loads((first / "settings.json").read_text()))
    assert (Path(again) / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("method", "values"),
    [
        ("triplet", {"margin": None, "normalise": False, "mining": "semi-hard", "lr": 1e-5, "width": 32}),
        ("maml", {"encoder": "resnet12", "width": 8, "steps": 7, "schedule": "linear", "clip": 0.1 + 0.2}),
        ("protonet", {"clusters": 30, "partitions": 2, "turns": 1}),
    ],
)
def test_a_recipe_is_read_as_it_was_written(method: str, values: dict[str, Any], tmp_path: Path) -> None:
    labels = 'clusters:runs/a "b"' if method == "protonet" else "true"
    job = Job(method, {}, {"seed": 3}, data="folder:/my pictures/é\\ü", size=20, labels=labels)
    (tmp_path / "best.toml").write_text(recipe_text(job, values, [*values], 'it says "best"'), "utf-8")
    assert Job(method, **read_config(tmp_path / "best.toml", method)) == with_values(job, values)


@pytest.mark.slow
def test_a_method_without_labels_says_that_labels_chose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["sweep", "simclr", "--over", "temperature=0.1,0.5", "--trials", "1", "--out", str(tmp_path), *TINY]
    assert main([*argv, "--images", "16", "--width", "8"]) == 0
    assert "simclr itself reads no true labels, but this choice does" in capsys.readouterr().out
    assert "labels of validation classes chose its settings" in (tmp_path / "best.toml").read_text()


KINDS = [pytest.param("sqlite", marks=pytest.mark.slow)]
KINDS += [pytest.param(kind, marks=pytest.mark.proof) for kind in ("journal", "postgresql")]


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_share_a_study_and_one_is_killed(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    """Each trial is trained once, and the trial of the killed process is run again by the other."""
    argv = [sys.executable, "-m", "metarep", "sweep", "protonet", "--over", "lr=1e-4..1e-2:log", *TINY]
    argv += ["--steps", "40", "--trials", "5", "--no-prune", "--width", "8", "--out", str(tmp_path / "out")]
    argv += ["--storage", str(tmp_path / "trials.journal")] if kind == "journal" else []
    argv += ["--storage", request.getfixturevalue("postgres")] if kind == "postgresql" else []
    processes = [subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    deadline = time.monotonic() + 120
    while not [*tmp_path.glob("out/trial-0001-seed-0/state.safetensors")]:
        assert time.monotonic() < deadline
        assert all(each.poll() is None for each in processes), [each.communicate() for each in processes]
        time.sleep(0.02)
    os.kill(processes[0].pid, signal.SIGKILL)
    output = [b"".join(each.communicate(timeout=300)) for each in processes]
    assert [each.returncode for each in processes] == [-signal.SIGKILL, 0], output
    assert b"chosen by labels" in output[1]
    with (tmp_path / "out" / "trials.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert [(row["folder"], row["state"]) for row in rows] == [(f"trial-000{i}", "done") for i in range(5)]
    for row in rows:
        lines = (tmp_path / "out" / f"{row['folder']}-seed-0" / "log.jsonl").read_text().splitlines()
        validated = [line["step"] for line in map(json.loads, lines) if "accuracy" in line]
        assert validated == [*range(2, 41, 2)], "a trial that is run again goes on where it was"


def test_a_database_that_fails_is_said() -> None:
    from sqlalchemy.exc import OperationalError

    from metarep.experiments.sweep.study import reachable

    with (
        pytest.raises(MetarepError, match="the storage of the sweep fails: server closed; start the same"),
        reachable(),
    ):
        raise OperationalError("SELECT", {}, Exception("server closed"))


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        (
            "nonsense",
            "the storage 'nonsense' is neither a URL nor a path that ends with .journal; write sqlite:///FILE",
        ),
        (
            "oracle+oracledb://me:secret@host/db",
            "the storage oracle+oracledb://me:***@host/db needs oracledb, which is not installed",
        ),
        ("sqlite:////no/such/folder/a.db", "cannot be opened: unable to open database file"),
    ],
)
def test_a_storage_that_cannot_be_opened(storage: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from metarep.experiments.sweep import study

    monkeypatch.setattr(study, "ATTEMPTS", 1)
    with pytest.raises(MetarepError) as caught:
        study.open_storage(storage)
    assert words in str(caught.value)
