"""Runs the shell commands of docs/search.md in order, on a folder like the one it describes."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metarep.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "search.md").read_text("utf-8")
SHELL = [line for code in re.findall(r"^```shell\n(.*?)^```$", PAGE, re.M | re.S) for line in code.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("search")
    g = np.random.default_rng(0)
    for path, width in (("photos/ink", 3), ("photos/pencil", 2), ("more", 3)):
        (root / path).mkdir(parents=True)
        for number in range(6):
            pixels = np.full((28, 28), 255, np.uint8)
            pixels[2 : 2 + 8 * width, 2 : 2 + 8 * width][
                np.kron(g.random((8, 8)) < 0.4, np.ones((width, width))) > 0
            ] = 0
            Image.fromarray(pixels).save(root / path / f"{number}.png")
    (root / "photos" / "ink" / "copy.png").write_bytes((root / "photos" / "ink" / "2.png").read_bytes())
    return root


@pytest.mark.slow
def test_the_commands_of_the_page(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert len(SHELL) >= 9
    output = {}
    for line in SHELL:
        words = shlex.split(line)
        assert words[0] == "metarep"
        if "--missing" in words:
            Path("more/1.png").unlink()
        assert main(words[1:]) == 0, capsys.readouterr().err
        output[line] = capsys.readouterr().out
    assert "13 images in photos.index" in output[SHELL[0]]
    assert {Path(name).exists() for name in ("found.png", "twins.png")} == {True}
    (twins,) = [text for line, text in output.items() if "duplicates" in line]
    assert "2 of them the same file" in twins
    assert re.search(r"photos/ink/2\.png\s+photos/ink/copy\.png|photos/ink/copy\.png\s+photos/ink/2\.png", twins)
    assert next(text for line, text in output.items() if "--missing" in line).endswith("1 removed\n")
