"""Folders that an earlier version wrote (commit dff95d8) open, and give the numbers that it gave."""

import json
import zipfile
from pathlib import Path

import pytest
import torch
from thinning import few

from metarep.cli import main
from metarep.errors import MetarepError
from metarep.machine.device import pick_precision

RUNS = ["protonet", "maml", "moco", "clusters", "init"]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(Path(__file__).with_name("dff95d8.zip")) as archive:
        archive.extractall(folder)
    return folder


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> list[dict]:
    capsys.readouterr()
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize("run", few(RUNS, 2))
def test_a_run_is_evaluated_as_it_was(
    old: Path, run: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(old)
    flags = "--tasks 20 --ways 5 --shots 1 --threads 1"
    rows = printed(capsys, "evaluate", f"run-{run}", *flags.split())
    expected = json.loads(Path("expected", f"run-{run}.json").read_text())
    for row, before in zip(rows, expected, strict=True):
        assert {key: row[key] for key in ("learner", "method", "labels", "init", "ways", "digest")} == {
            key: before[key] for key in ("learner", "method", "labels", "init", "ways", "digest")
        }
        assert row["accuracy"] == pytest.approx(before["accuracy"], abs=0.1)  # one query in 1,500


@pytest.mark.slow
def test_a_run_is_resumed(old: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(old)
    try:
        pick_precision("bfloat16", torch.device("cpu"))
    except MetarepError:
        pytest.skip("this processor has no bfloat16 arithmetic, in which the run was begun")
    command = "train protonet --data glyphs --steps 3 --width 8 --threads 1 --precision bfloat16 --out run-protonet"
    assert main(command.split()) == 0


def test_a_model_folder_answers_as_it_did(
    old: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(old)
    expected = json.loads(Path("expected/model-run.json").read_text())
    answers = printed(capsys, "predict", "model-run", *(row["image"] for row in expected))
    assert [row["label"] for row in answers] == [row["label"] for row in expected]


def test_an_index_finds_what_it_found(old: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(old)
    rows = printed(capsys, "index", "search", "index", "drawings/bbb/1.png")
    expected = json.loads(Path("expected/index.json").read_text())
    for hit, before in zip(rows[0]["hits"], expected[0]["hits"], strict=True):
        assert hit["path"] == before["path"]
        assert hit["score"] == pytest.approx(before["score"], abs=2e-3)
