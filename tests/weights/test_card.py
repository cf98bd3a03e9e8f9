"""Model cards: written with every model and run, true after a change, loaded by their own code lines, never harmful."""

import re
from pathlib import Path

import pytest
from serving import ENCODER, drawing

from metarep.cli import main
from metarep.experiments.card import run_card
from metarep.model.card import gallery_digest
from metarep.model.folder import ModelFolder
from metarep.weights.card import CARD, MARK, CardWarning, data_licence, write_card

FRONT = re.compile(r"---\n(?:\w+: [\w-]+\n|tags:\n|- [\w-]+\n)+---\n")  # what a hub reads
NAMES = {"ring": "ring", "cross": "a_b <i>|飛蛾"}


def put(folder: Path, kind: str, *seeds: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (folder / f"{seed}.png").write_bytes(drawing(kind, seed))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.chdir(tmp_path)
    for kind, name in NAMES.items():
        put(tmp_path / "photos" / name, kind, *range(4))
    assert main(["fit", "photos", "--out", "my model", "--encoder", ENCODER]) == 0
    capsys.readouterr()
    return tmp_path / "my model"


def code_of(card: str) -> str:
    [code] = re.findall("```python\n(.*?)```", card, re.S)
    return code


def test_the_card_of_a_model(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = (model / CARD).read_text("utf-8")
    assert FRONT.match(card)
    assert "# my model\n" in card
    assert "| a\\_b \\<i\\>\\|飛蛾 | 4 | 100 % of 4 |" in card
    assert "2 classes, 8 images" in card
    assert gallery_digest(ModelFolder.open(model).model.gallery) in card
    assert "8 images of the model left out" in card
    assert "omniglot-protonet, a network of the kind conv4, for images of 28 x 28 px, grey" in card
    assert "trained by protonet on omniglot" in card
    assert "photos" not in card, "no path of whoever made it"
    assert main(["card", "my model"]) == 0
    assert capsys.readouterr().out == card
    Path("new.jpg").write_bytes(drawing("ring", 9, file="JPEG"))
    exec(code_of(card), {})  # the lines that the card gives
    assert capsys.readouterr().out == "['ring']\n"


@pytest.mark.slow
def test_the_card_follows_the_model(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (model / CARD).read_text("utf-8")
    put(model.parent / "comb", "comb", 0, 1)
    assert main(["add", "my model", "comb"]) == 0
    more = (model / CARD).read_text("utf-8")
    assert "3 classes, 10 images" in more
    assert "| comb | 2 |" in more
    assert main(["remove", "my model", "comb"]) == 0
    assert (model / CARD).read_text("utf-8") == before
    ModelFolder.open(model).rename("ring", "circle")
    assert "Not computed for the images that it has now" in (model / CARD).read_text("utf-8")
    assert main(["card", "my model", "--json"]) == 0
    assert "images of the model left out" in (model / CARD).read_text("utf-8")
    (model / CARD).write_text("mine\n")
    ModelFolder.open(model).rename("circle", "ring")
    assert (model / CARD).read_text("utf-8") == "mine\n"
    assert main(["card", "photos"]) == 2
    assert "photos is not a model folder" in capsys.readouterr().err


def test_a_card_that_cannot_be_written_harms_nothing(model: Path) -> None:
    (model / CARD).unlink()
    (model / CARD).mkdir()
    with pytest.warns(CardWarning, match=r"README.md could not be written \(.*\); the model is not affected"):
        ModelFolder.open(model).rename("ring", "circle")
    assert "circle" in ModelFolder.open(model).model.gallery.names
    with pytest.warns(CardWarning):
        assert not write_card(model / "absent", MARK)


@pytest.mark.slow
def test_the_card_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--size", "16", "--width", "8", "--ways", "5", "--queries", "1", "--validation-tasks", "10"]
    small += ["--validation-ways", "5", "--shots", "1"]
    steps = ["--steps", "2", "--validate-every", "1", "--out", "my run", "--json"]
    assert main(["train", "protonet", "--data", "glyphs", *small, *steps]) == 0
    capsys.readouterr()
    card = (tmp_path / "my run" / CARD).read_text("utf-8")
    assert FRONT.match(card)
    assert re.search(r"glyphs, part train, digest `\w+`\. Licence: drawn from fonts", card)
    assert re.search(r"\d+\.\d\d ± \d+\.\d\d % on validation classes", card)
    assert "5-way 1-shot" in card
    assert "conv4, width 8, images of 16 px, trained by protonet" in card
    assert main(["card", "my run"]) == 0
    assert capsys.readouterr().out == card == run_card(Path("my run"))
    scope: dict[str, object] = {}
    exec(code_of(card), scope)  # the lines that the card gives
    assert type(scope["learner"]).__name__ == "Prototypes"


def test_licences_that_are_not_known_are_said_to_be_unknown() -> None:
    assert data_licence("mine").startswith("unknown")
    assert data_licence("fc100") == data_licence("cifar-fs")
