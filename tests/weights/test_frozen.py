"""Frozen encoders are measured as runs are."""

import json
from pathlib import Path

import pytest
import torch

from metarep.cli import main
from metarep.encoders import Encoder, Preprocess, build_encoder
from metarep.experiments.measurement.results import read
from metarep.weights import frozen
from metarep.weights.representation import Representation


def small(spec: str, *, size: int | None, arch: str | None = None) -> Representation:
    """A network of any size under the name of a pretrained one."""
    torch.manual_seed(0)
    sides = (size or 20, size or 20)
    encoder = build_encoder("conv4", Preprocess(sides, 1, (0.5,), (0.25,)), width=8, average=True)
    return Representation(Encoder(encoder.body, encoder.preprocess, encoder.arch).eval(), spec)


@pytest.fixture(autouse=True)
def without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen, "load_representation", small)


def test_a_pretrained_encoder_gives_a_row_that_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "glyphs.csv"
    words = "evaluate efficientnet-lite0 --data glyphs --size 28 --tasks 20 --no-references --json --results"
    assert main([*words.split(), str(table)]) == 0
    assert json.loads(capsys.readouterr().out)[0]["method"] == "frozen"
    (row,) = read(table)
    told = {name: row[name] for name in ("method", "learner", "labels", "init", "encoder", "size", "trained_on")}
    assert told == {
        "method": "frozen",
        "learner": "prototypes",
        "labels": "pretrained",
        "init": "pretrained",
        "encoder": "efficientnet-lite0",
        "size": "28",
        "trained_on": "",
    }


def test_images_are_read_at_the_size_of_the_encoder(capsys: pytest.CaptureFixture[str]) -> None:
    words = "evaluate efficientnet-lite0 --data glyphs --tasks 20 --no-references --json"
    assert main(words.split()) == 0
    assert json.loads(capsys.readouterr().out)[0]["size"] == "20"


def test_its_data_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "efficientnet-lite0"]) == 2
    assert "efficientnet-lite0 was not trained here; name the data with --data" in capsys.readouterr().err


def test_a_run_is_loaded_as_a_run() -> None:
    assert frozen.load_to_measure("omniglot-protonet").record.method == "protonet"
