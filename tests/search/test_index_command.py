"""The command line of the index of images."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from metarep.cli import main
from metarep.search.image_index import ImageIndex

MODEL = "omniglot-protonet"


@pytest.mark.slow
def test_the_command_line_from_folder_to_duplicates(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(photos / "kind 0" / "0.png", photos / "kind 0" / "copy.png")

    def say(*argv: str) -> Any:
        assert main([*argv, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    built = say("index", "build", "an.index", "photos/kind 0", "--encoder", MODEL)
    assert built == {"images": 11, "new": 11, "changed": 0, "known": 0, "left_out": 0}
    assert say("index", "add", "an.index", "photos")["new"] == 70
    (found,) = say("search", "an.index", "photos/kind 2/2.png", "-k", "3", "--out", "sheet.png")
    assert found["hits"][0]["path"].endswith("kind 2/2.png")
    assert Path("sheet.png").read_bytes().startswith(b"\x89PNG")
    assert say("index", "search", "an.index", "photos/kind 2/2.png", "-k", "3") == [found]
    groups = say("index", "duplicates", "an.index", "--threshold", "0.99999", "--out", "twins.png")
    assert {"0.png", "copy.png"} <= {Path(item["path"]).name for item in groups[0]}
    assert Path("twins.png").exists()
    facts = say("index", "stats", "an.index")
    assert (facts["images"], facts["backend"], facts["missing"]) == (81, "exact", 0)
    assert say("index", "remove", "an.index", "photos/kind 3")["removed"] == 10
    for words in (["index", "stats", "an.index"], ["index", "duplicates", "an.index", "--out", "x.png"]):
        assert main(words) == 0
    assert main(["search", "an.index", "photos/kind 2/2.png"]) == 0
    assert "photos/kind 2/2.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["index", "build", "x", "--encoder", MODEL], "index build needs folders of images"),
        (["index", "build", "x", "y", "--encoder", "nothing"], "unknown encoder 'nothing'"),
        (["index", "build", "x", "y", "--encoder", MODEL, "--index", "fais"], "unknown index 'fais'"),
        (["index", "build", "x", "y", "--encoder", MODEL, "--index", "faiss", "--link", "9"], "did you mean --links?"),
        (["index", "remove", "x"], "index remove needs files, folders, or --missing"),
        (["index", "serch", "x"], "unknown action 'serch'; did you mean 'search'?"),
        (["index", "duplicates", "x", "--threshold", "2"], "--threshold must be a cosine from -1 to 1, not 2"),
        (["search", "x", "y"], "x holds no index; make one with metarep index build x FOLDER"),
    ],
)
def test_wrong_words_are_one_line_that_helps(
    argv: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1


def test_the_backend_and_its_settings_are_flags(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("faiss", reason="needs metarep[ann]")
    path = str(tmp_path / "an.index")
    words = ["index", "build", path, str(photos), "--encoder", MODEL, "--index", "faiss", "--kind", "ivf"]
    assert main(words) == 0
    assert main(["index", "stats", path]) == 0
    assert "backend            faiss" in capsys.readouterr().out
    assert ImageIndex(Path(path)).index.chosen_settings()["kind"] == "ivf"
    assert main([*words[:-1], "sq8"]) == 2
    assert "holds an index with the settings" in capsys.readouterr().err
