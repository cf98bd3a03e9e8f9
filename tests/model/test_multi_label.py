"""Several labels an image: lists, the model against plain formulas, its folder, its measures, and the commands."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pairs import write_list, write_rows
from serving import ENCODER
from sklearn.metrics import average_precision_score, f1_score

from metarep.cli import main
from metarep.data.reading.label_sets import read_label_sets
from metarep.errors import DataError, MetarepError
from metarep.machine.files import read_tensors, write_tensors
from metarep.model.export import export_onnx
from metarep.model.folder import ModelFolder
from metarep.model.head import build_head
from metarep.model.multi_label.folder import MultiLabelFolder
from metarep.model.multi_label.model import FOLDS, MultiLabelModel
from metarep.model.multi_label.scores import measure_labels
from metarep.weights.hub.contents import LABELS
from metarep.weights.named import load_representation

HEAD = {"name": "prototypes"}


@pytest.fixture
def lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lists of pictures with rings, crosses, both or none: 32 to learn and 16 others."""
    monkeypatch.chdir(tmp_path)
    write_list(tmp_path, "train", range(8))
    write_list(tmp_path, "test", range(20, 24))
    return tmp_path


WRONG = [
    ("path,label\n1.png,a;b\n", "line 2: 'a;b' has a semicolon; write | between the labels"),
    ("path,label\n1.png,a||b\n", "line 2: 'a||b' has an empty label"),
    ("path,label\n1.png,\n", "gives no label to any image"),
    ("path,label\nx.png,a\n", "line 2: there is no image 'x.png'"),
    ("path,label\n1.png,b\n1.png,a\n1.png,\n", "'1.png' has 'a|b' in line 2 and no label in line 4; remove one"),
    ("path,label\n1.png,\n./1.png,a\n", "'./1.png' has 'a' in line 3 and no label in line 2; remove one"),
]


@pytest.mark.parametrize(("content", "message"), WRONG)
def test_wrong_lists(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "1.png").touch()
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError) as raised:
        read_label_sets(tmp_path / "a.csv")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    with pytest.raises(DataError, match="is a folder; several labels an image are read from a list"):
        read_label_sets(tmp_path)


@pytest.mark.parametrize("name", ["prototypes", "linear"])
def test_scores_are_those_of_one_task_a_label(name: str) -> None:
    torch.manual_seed(0)
    rows, marks = torch.randn(12, 5), torch.rand(12, 3) < 0.5
    model = MultiLabelModel(None, ["a", "b", "c"], rows, marks, ["x"] * 12, head={"name": name})
    _, learner = build_head(None, {"name": name})
    learner.level = False
    query = torch.randn(4, 5)
    for label in range(3):
        state = learner.adapt(rows[None], marks[None, :, label].long(), 2)
        logits = learner.logits(state, query[None])[0]
        torch.testing.assert_close(model.scores(query)[:, label], logits[:, 1] - logits[:, 0])
        for fold in range(FOLDS):
            out = torch.arange(12) % FOLDS == fold
            stays = ~out
            state = learner.adapt(rows[stays][None], marks[stays][None, :, label].long(), 2)
            logits = learner.logits(state, rows[None, out])[0]
            torch.testing.assert_close(model.held_out[out, label], logits[:, 1] - logits[:, 0], rtol=1e-3, atol=1e-3)


def test_near_copies_are_left_out_together_and_single_labels_not_at_all() -> None:
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.3, 1.0], [0.7, 0.2]])
    marks = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1], [0, 0]]).bool()
    model = MultiLabelModel(None, ["copied", "seen"], rows, marks, ["x"] * 5, head=HEAD)
    assert model.held_out[:, 0].isnan().all(), "without both copies no image of the label is left"
    assert model.calibration.tested == (False, True)
    assert all(0 < threshold < 1 for threshold in model.calibration.thresholds)


def test_what_cannot_be_learned() -> None:
    rows = torch.eye(3)
    for labels, message in [
        ([["a"], ["a"], ["a", "b"]], "every image has the label 'a'.*; add images without it"),
        ([[], [], []], "no image has a label"),
        ([["a"], ["b"]], "3 images and labels of 2 images do not match"),
        (["a", "b", "c"], "the labels of an image are a list"),
    ]:
        with pytest.raises(MetarepError, match=message):
            MultiLabelModel.fit(None, rows, labels, head=HEAD)


def test_no_probability_is_written_that_no_test_has_set(lists: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(Path("one.csv"), [("train-ring-0.png", "ring"), ("train-cross-0.png", "cross")])
    assert main(["fit", "one.csv", "--out", "one", "--encoder", ENCODER, "--multi-label"]) == 0
    assert "so probabilities are not set" in capsys.readouterr().out
    assert main(["predict", "one", "test-ring-20.png", "test-none-20.png"]) == 0
    for line in capsys.readouterr().out.splitlines():
        assert re.fullmatch(
            r"\S+: (ring|cross|ring, cross|no label \(likeliest: \w+\))  \(how probable: unknown\)", line
        )


def test_the_measures_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    scores = torch.from_numpy(generator.integers(0, 6, (60, 4)) / 5.0).float()  # many are equal
    has = torch.from_numpy(generator.random((60, 4)) < scores.numpy() * 0.7)
    decided = scores > 0.5
    verdict = measure_labels(list("abcd"), scores, decided, has)
    assert verdict.precision == pytest.approx(100 * average_precision_score(has, scores, average="macro"))
    for kind, value in (("micro", verdict.micro), ("macro", verdict.macro)):
        assert value == pytest.approx(100 * f1_score(has, decided, average=kind))
    for name, value in (("mean_average_precision", verdict.precision), ("micro_f1", verdict.micro)):
        low, high = verdict.intervals[name]
        assert low < value < high < low + 40


@pytest.mark.slow
def test_fit_predict_and_measure(lists: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "train.csv", "--out", "model", "--encoder", ENCODER, "--multi-label"]) == 0
    out = capsys.readouterr().out
    assert "2 labels, 32 images" in out
    assert "expected, by leaving images out" in out
    assert main(["predict", "model", "test.csv", "--labelled", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["images"] == 16
    assert facts["mean_average_precision"]["percent"] > 90
    assert facts["micro_f1"]["percent"] > 80
    low, high = facts["macro_f1"]["interval"]
    assert low <= facts["macro_f1"]["percent"] <= high
    names = [f"test-{kinds}-20.png" for kinds in ("ring", "ring-cross", "none")]
    assert main(["predict", "model", *names, "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    model = MultiLabelFolder.open("model").model
    for answer, own in zip(answers, model.answer(model.prepare(names)), strict=True):
        said = {each["label"]: each["probability"] for each in answer["labels"]}
        assert said == pytest.approx(own.labels, abs=1e-5)
        assert set(answer["probabilities"]) == {"ring", "cross"}
        thresholds = dict(zip(model.names, model.calibration.thresholds, strict=True))
        assert set(said) == {name for name, value in own.probabilities.items() if value >= thresholds[name]}
    assert main(["predict", "model", *names, "--csv"]) == 0
    Path("answers.csv").write_text(capsys.readouterr().out)
    sets = read_label_sets(Path("answers.csv"))  # answers are a list themselves
    assert sets.labels == tuple(tuple(sorted(each["label"] for each in answer["labels"])) for answer in answers)
    assert main(["predict", "model", "train.csv", "--labelled"]) == 2
    assert "the model has learned every one of these images" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of the package multipart
def test_what_does_not_work_is_said_in_one_line(lists: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = ["fit", "train.csv", "--out", "model", "--encoder", ENCODER]
    assert main(fit) == 2
    assert "metarep fit LIST --multi-label" in capsys.readouterr().err
    Path("twice.csv").write_text("path,label\ntrain-ring-0.png,a\ntrain-ring-0.png,b\n")
    assert main(["fit", "twice.csv", "--out", "model"]) == 2
    error = capsys.readouterr().err
    assert "'train-ring-0.png' has two labels, 'a' in line 2 and 'b' in line 3; mend the list, or keep all" in error
    assert not Path("model").exists()
    assert main([*fit, "--multi-label", "--false-alarms", "0.1"]) == 2
    assert "--false-alarms is for models of one class an image" in capsys.readouterr().err
    assert main([*fit, "--multi-label"]) == 0
    assert main([*fit, "--multi-label"]) == 2
    assert "model is there already" in capsys.readouterr().err
    assert main(["suggest", "model", "."]) == 2
    refusal = (
        "model is a model of several labels an image, and this needs a model of one class an image; fit one of these"
    )
    assert capsys.readouterr().err == f"metarep: {refusal}\n"
    assert main(["predict", "model", "train-ring-0.png", "--neighbours", "2"]) == 2
    assert "several labels an image, which compares with no single image; leave --neigh" in capsys.readouterr().err
    with pytest.raises(MetarepError, match="several labels an image"):
        ModelFolder.open(Path("model"))
    assert main(["evaluate", "model", "--data", "glyphs"]) == 2
    assert "model is a model folder and not a run folder; measure it with metarep predict model LIST --labelled" in (
        capsys.readouterr().err
    )
    pytest.importorskip("uvicorn")
    assert main(["serve", "model", "--encoder", ENCODER]) == 2
    assert "model is there already, with an encoder of its own; leave --encoder out" in capsys.readouterr().err


@pytest.mark.slow
def test_a_folder_holds_the_model_and_damage_is_noticed(lists: Path, tmp_path: Path) -> None:
    sets = read_label_sets(Path("train.csv"))
    model = MultiLabelModel.fit(load_representation(ENCODER), [str(file) for file in sets.files], sets.labels)
    MultiLabelFolder.create(tmp_path / "saved", model)
    again = MultiLabelFolder.open(tmp_path / "saved").model
    assert (again.names, again.items, again.calibration) == (model.names, model.items, model.calibration)
    rows = model.rows[:3]
    assert again.answer(rows) == model.answer(rows)
    assert "multi-label" in (tmp_path / "saved" / "README.md").read_text()
    path = tmp_path / "saved" / LABELS
    tensors, header = read_tensors(path)
    trust = header["trust"]
    for damage in (
        {"names": ["ring"]},
        {"format": "labels-9"},
        {"calibration": {}},
        {"calibration": {**header["calibration"], "scale": "nan"}},
        {"head": {"name": "x"}},
        {"trust": 3},
        {"trust": {**trust, "names": ["stone"]}},
        {"trust": {**trust, "intervals": {}}},
        {"trust": {**trust, "per_label": {"ring": {}}}},
    ):
        write_tensors(path, tensors, {**header, **damage})
        with pytest.raises(MetarepError, match="is damaged, or of a newer metarep"):
            MultiLabelFolder.open(tmp_path / "saved")
    write_tensors(path, {**tensors, "marks": tensors["marks"][:, :1]}, header)
    with pytest.raises(MetarepError, match="is damaged"):
        MultiLabelFolder.open(tmp_path / "saved")
    with pytest.raises(MetarepError, match="not a model of several labels an image; make one with"):
        MultiLabelFolder.open(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("head", [None, {"name": "prototypes"}, {"name": "neighbours", "k": 3}])
def test_an_exported_graph_says_what_the_model_says(head: dict[str, Any] | None, lists: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    sets = read_label_sets(Path("train.csv"))
    files = [str(file) for file in sets.files]
    model = MultiLabelModel.fit(load_representation(ENCODER), files, sets.labels, head=head)
    export_onnx(model, Path("model.onnx"))
    session = runtime.InferenceSession("model.onnx")
    assert [each.name for each in session.get_outputs()] == ["probabilities", "scores"]
    facts = json.loads(session.get_modelmeta().custom_metadata_map["metarep"])
    assert (facts["labels"], facts["size"], facts["channels"]) == (["cross", "ring"], [28, 28], 1)
    new = [str(file) for file in read_label_sets(Path("test.csv")).files]
    (pixels,) = [pixels for pixels, _ in model.read(new)]
    want = model.answer(model.prepare(new))
    probabilities, scores = session.run(None, {"images": pixels.numpy()})
    assert probabilities == pytest.approx(np.array([list(each.probabilities.values()) for each in want]), abs=1e-4)
    given = model.scores(model.prepare(new)).numpy()
    assert abs(scores - given).max() < 1e-4 * max(1, abs(given).max())
    for own, answer in zip(probabilities, want, strict=True):
        pairs = zip(facts["labels"], own >= np.array(facts["thresholds"]), strict=True)
        assert {name for name, has in pairs if has} == set(answer.labels)
    assert session.run(None, {"images": pixels[:1].numpy()})[0] == pytest.approx(probabilities[:1], abs=1e-5)


@pytest.mark.slow
def test_the_program_of_the_page_says_which_labels(lists: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    page = (Path(__file__).parents[2] / "docs" / "your-own-images.md").read_text("utf-8")
    (program,) = re.findall(r"^```py\n(.*?)^```$", page, re.M | re.S)
    (end,) = re.findall(r"^```text\n(    probabilities = session.*?)^```$", page, re.M | re.S)
    Path("ask.py").write_text(program[: program.index("    probabilities, _, familiarity")] + end)
    assert main(["fit", "train.csv", "--out", "model", "--encoder", ENCODER, "--multi-label"]) == 0
    assert main(["export", "model", "--onnx", "moths.onnx"]) == 0
    capsys.readouterr()
    names = [f"test-{kinds}-20.png" for kinds in ("ring", "ring-cross", "none")]
    said = subprocess.run([sys.executable, "ask.py", *names], capture_output=True, text=True, check=True).stdout
    assert main(["predict", "model", *names, "--json"]) == 0
    for line, answer in zip(said.splitlines(), json.loads(capsys.readouterr().out), strict=True):
        assert line.split("\t")[0] == answer["image"]
        assert set(line.split("\t")[1:]) == {each["label"] for each in answer["labels"]}


@pytest.mark.slow
def test_the_command_exports_and_refuses_the_page(lists: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript")
    assert main(["fit", "train.csv", "--out", "model", "--encoder", ENCODER, "--multi-label"]) == 0
    capsys.readouterr()
    assert main(["export", "model", "--onnx", "m.onnx", "--torch-export", "m.pt2"]) == 0
    assert capsys.readouterr().out == "m.onnx: 2 labels\nm.pt2: 2 labels\n"
    model = MultiLabelFolder.open("model").model
    pixels, rows = next(model.read(["test-ring-20.png"]))
    extra = {"metarep.json": ""}
    with torch.no_grad():
        probabilities, _ = torch.export.load("m.pt2", extra_files=extra).module()(pixels)
    torch.testing.assert_close(probabilities, model.probabilities(model.scores(rows)), rtol=0, atol=1e-4)
    assert json.loads(extra["metarep.json"])["thresholds"] == pytest.approx(model.calibration.thresholds)
    assert main(["export", "model", "--web", "page"]) == 2
    error = capsys.readouterr().err
    assert "model is a model of several labels an image, and the page of --web shows one class an image; leave" in error
    assert error.count("\n") == 1
    assert not Path("page").exists()
