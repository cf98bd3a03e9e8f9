"""Which images to label next, and which classes need more: against a slow formula, on copies, and as a command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from serving import ENCODER, drawing

from metarep.cli import main
from metarep.errors import MetarepError
from metarep.model.gallery import Gallery
from metarep.model.model import Model
from metarep.model.suggestions import class_needs, suggest
from metarep.model.trust.trust import ClassTrust, Trust

HEAD = {"name": "prototypes"}
pytestmark = pytest.mark.filterwarnings("always::metarep.data.datasets.options.LeftOutWarning")


def model_of(rows: list[list[float]], labels: str) -> Model:
    return Model(
        None, HEAD, Gallery.empty().add(torch.tensor(rows), list(labels), [f"{i}.jpg" for i in range(9)][: len(labels)])
    )


def slowly(model: Model, rows: np.ndarray, number: int) -> list[int]:
    """The rows that facility location chooses with weights of 1 minus the margin, one pair of images at a time."""
    probabilities = (model.scores(torch.from_numpy(rows).float()).double() * model.trust.scale).softmax(-1).numpy()
    weights = [1 - (max(p) - sorted(p)[-2]) for p in probabilities]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    known, chosen = [*model.features.double().numpy()], []
    for _ in range(number):
        value = {}
        for row in set(range(len(rows))) - set(chosen):
            shown = [*known, *(unit[each] for each in [*chosen, row])]
            value[row] = sum(
                w * max(float(one @ other) for other in shown) for w, one in zip(weights, unit, strict=True)
            )
        chosen.append(max(value, key=lambda row: (round(value[row], 9), -row)))
    return chosen


def test_what_is_suggested_is_what_the_formula_says() -> None:
    generator = np.random.default_rng(0)
    model = model_of(generator.random((4, 5)).tolist(), "aabc")
    rows = generator.random((30, 5))
    suggestions = suggest(model, torch.from_numpy(rows).float(), number=6)
    assert [each.row for each in suggestions] == slowly(model, rows, 6)
    gains = [each.stands_for for each in suggestions]
    assert gains == sorted(gains, reverse=True)
    assert 0 < sum(gains) < 1


def test_near_copies_are_suggested_once_and_known_pictures_never() -> None:
    model = model_of([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], "ab")
    pool = torch.tensor([[1.0, 1.0, 0.0]] * 10 + [[0.0, 0.5, 1.0], [2.0, 0.0, 0.0]])
    second, first = suggest(model, pool, number=10)
    assert (first.row, first.copies, second.row, second.copies) == (0, tuple(range(1, 10)), 10, ())
    assert suggest(model, torch.zeros(0, 3)) == suggest(model, torch.zeros(0, 0)) == []
    with pytest.raises(MetarepError, match="number must be at least 1, not 0"):
        suggest(model, pool, number=0)
    with pytest.raises(MetarepError, match="the model has no classes yet"):
        suggest(Model(None, HEAD), pool)


def test_a_model_of_one_class_still_spreads_its_questions() -> None:
    model = model_of([[1.0, 0.0]], "a")
    [one] = suggest(model, torch.tensor([[1.0, 0.1], [0.0, 1.0]]), number=1)
    assert (one.row, one.label, one.second, one.margin) == (1, "a", "", 0.0)


def test_classes_that_need_images() -> None:
    """By hand: d is confused, c has one image, b few, and a is as it should be."""
    rows = torch.eye(4).repeat_interleave(torch.tensor([6, 1, 1, 6]), 0)
    model = Model(None, HEAD, Gallery.empty().add(rows, list("aaaaaabcdddddd"), ["x"] * 14))
    right, wrong = ClassTrust(100.0, (60.0, 100.0), 6, needs=False), ClassTrust(20.0, (5.0, 60.0), 6, needs=True)
    trust = Trust(80.0, (60.0, 90.0), 14, classes=(right, right, ClassTrust(None, None, 0, needs=True), wrong))
    needs = class_needs(model.restore_calibration(trust, None))
    assert [(each.label, each.why) for each in needs] == [("d", "inaccurate"), ("c", "single"), ("b", "few"), ("a", "")]
    assert needs[1].as_dict() == {"label": "c", "images": 1, "accuracy": None, "taken_for": {}, "why": "single"}
    assert class_needs(Model(None, HEAD)) == []


@pytest.fixture
def camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of two kinds of drawings, fitted from ``photos``, and unlabelled drawings in ``camera``."""
    monkeypatch.chdir(tmp_path)
    for kind in ("ring", "cross"):
        for seed in range(4):
            path = tmp_path / "photos" / kind / f"{seed}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(drawing(kind, seed))
    (tmp_path / "camera").mkdir()
    for kind in ("ring", "steps", "comb"):
        for seed in range(5, 8):
            (tmp_path / "camera" / f"{kind} ü {seed}.png").write_bytes(drawing(kind, seed))
    (tmp_path / "camera" / "known.png").write_bytes(drawing("ring", 0))
    (tmp_path / "camera" / "broken.png").write_bytes(b"no picture")
    assert main(["fit", "photos", "--out", "model", "--encoder", ENCODER]) == 0
    return tmp_path / "camera"


@pytest.mark.slow
def test_the_command(camera: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["suggest", "model", "camera", "--number", "3", "--skip-bad", "--json", "--out", "next.png"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["images"], len(facts["suggestions"]), len(facts["classes"])) == (10, 3, 2)
    assert not any("known" in each["image"] for each in facts["suggestions"])
    assert Path(facts["picture"]).stat().st_size > 1000
    assert main(["suggest", "model", "camera", "--number", "2", "--skip-bad"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "label these 2 images of 10 next:"
    assert lines[-1].startswith("next: metarep add model '")
    assert lines[-1].endswith("--to CLASS")
    assert main(["suggest", "model", "camera/known.png", "--out", "none.png"]) == 0
    assert "nothing to label: every image is a near copy of one that the model has" in capsys.readouterr().out
    assert not Path("none.png").exists()
    assert main(["suggest", "model", "camera"]) == 2
    assert "--skip-bad" in capsys.readouterr().err
    assert main(["suggest", "model", "camera", "--number", "0"]) == 2
    assert "--number must be between 1 and 1,000, not 0" in capsys.readouterr().err
