"""A served model of several labels an image: its answers, its summary, its downloads, and what it refuses."""

import io
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pairs import learned, pair
from serving import ENCODER, HOST, served

from metarep.app import asking, overview, suggesting, teaching
from metarep.model.multi_label.changes import remove_labels
from metarep.model.multi_label.folder import MultiLabelFolder


@pytest.fixture
def scenes(tmp_path: Path) -> MultiLabelFolder:
    return learned(tmp_path)


@pytest.fixture
def client(scenes: MultiLabelFolder) -> Iterator[Any]:
    with served(scenes) as server:
        yield server


def files(*pictures: tuple[tuple[str, ...], int]) -> list[tuple[str, tuple[str, bytes]]]:
    found = []
    for kinds, seed in pictures:
        content = BytesIO()
        pair(kinds, seed).save(content, "PNG")
        found.append(("files", (f"{'-'.join(kinds) or 'none'}.png", content.getvalue())))
    return found


def test_answers_are_those_of_the_model(client: Any, scenes: MultiLabelFolder) -> None:
    asked = [(("ring",), 30), (("ring", "cross"), 31), ((), 32)]
    answers = client.post("/predict", files=files(*asked)).json()["answers"]
    assert [each["item"] for each in answers] == ["ring.png", "ring-cross.png", "none.png"]
    model = scenes.model
    for answer, own in zip(answers, model.answer(model.prepare([pair(*each) for each in asked])), strict=True):
        assert answer["probabilities"] == pytest.approx(own.probabilities, abs=1e-5)
        assert [each["label"] for each in answer["labels"]] == list(own.labels)
        assert all(answer["probabilities"][each["label"]] == each["probability"] for each in answer["labels"])
    assert {each["label"] for each in answers[1]["labels"]} == {"ring", "cross"}
    assert answers[2]["labels"] == []
    lines = client.get("/metrics").text.splitlines()
    assert {f'metarep_label_answers_total{{labels="{said}"}} 1.0' for said in ("none", "one", "several")} <= set(lines)
    assert not any(line.startswith("metarep_predictions_total{") for line in lines)
    assert {"metarep_labels 2.0", "metarep_images 32.0"} <= set(lines)


def test_a_change_on_disk_is_seen(client: Any, scenes: MultiLabelFolder) -> None:
    assert [each["label"] for each in client.get("/summary").json()["labels"]] == ["cross", "ring"]
    MultiLabelFolder.open(scenes.path).forget(["cross"])
    (label,) = client.get("/summary").json()["labels"]
    assert (label["label"], label["images"]) == ("ring", 16)
    (answer,) = client.post("/predict", files=files((("ring",), 30))).json()["answers"]
    assert set(answer["probabilities"]) == {"ring"}


def test_the_summary_says_how_far_it_can_be_trusted(client: Any, scenes: MultiLabelFolder) -> None:
    facts = client.get("/summary").json()
    assert (facts["name"], facts["images"], facts["encoder"], facts["size"]) == ("model", 32, ENCODER, [28, 28])
    trust = scenes.model.trust
    assert trust is not None
    assert facts["held_out"]["mean_average_precision"]["percent"] == pytest.approx(trust.precision, abs=0.01)
    for label, threshold in zip(facts["labels"], scenes.model.calibration.thresholds, strict=True):
        assert label["threshold"] == pytest.approx(threshold, abs=1e-4)
        assert label["average_precision"] == trust.per_label[label["label"]]["average_precision"]
    assert str(scenes.path) not in client.get("/summary").text


def test_what_is_for_one_class_an_image_is_refused_in_one_sentence(client: Any, scenes: MultiLabelFolder) -> None:
    content = (scenes.path / scenes.FILE).read_bytes()
    refused = 0
    for part in (asking, overview, suggesting, teaching):
        for route in part.router.routes:
            for method in route.methods:
                if (method, route.path) in {("POST", "/predict"), ("GET", "/summary")}:
                    continue
                path = route.path.replace("{number}", "0")
                response = client.request(method, path, headers={"origin": HOST})
                assert response.status_code == 409, (method, path)
                sentence = (
                    f"{method} {path} is for models of one class an image, and this one has several labels an image"
                )
                assert response.json()["detail"].startswith(sentence)
                refused += 1
    assert refused >= 12
    assert (scenes.path / scenes.FILE).read_bytes() == content
    assert set(client.get("/openapi.json").json()["paths"]) == {
        *("/predict", "/summary", "/model", "/model.onnx", "/health", "/metrics"),
    }


def test_wrong_files_are_refused_as_for_any_model(client: Any) -> None:
    response = client.post("/predict", files=[("files", ("note.txt", b"no image"))])
    assert response.status_code == 422
    assert "note.txt is not an image" in response.json()["detail"]


@pytest.mark.slow
def test_downloads_open_and_answer_alike(client: Any, scenes: MultiLabelFolder, tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(client.get("/model").content)) as archive:
        assert set(archive.namelist()) == {"model/encoder.safetensors", "model/labels.safetensors"}
        archive.extractall(tmp_path / "unpacked")
    copy = MultiLabelFolder.open(tmp_path / "unpacked" / "model").model
    rows = scenes.model.rows[:3]
    assert copy.answer(rows) == scenes.model.answer(rows)
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    (tmp_path / "m.onnx").write_bytes(client.get("/model.onnx").content)
    (pixels,) = [pixels for pixels, _ in copy.read([pair(("ring",), 30)])]
    probabilities = runtime.InferenceSession(tmp_path / "m.onnx").run(None, {"images": pixels.numpy()})[0]
    want = copy.probabilities(copy.scores(copy.prepare([pair(("ring",), 30)]))).numpy()
    assert np.abs(probabilities - want).max() < 1e-4


def test_a_model_without_a_figure_is_served(scenes: MultiLabelFolder, tmp_path: Path) -> None:
    single = remove_labels(scenes.model, ["cross"])
    few = single.changed(["ring"], single.rows[[0, 1]], single.marks[[0, 1]], ["a", "b"], single.hashes[[0, 1]])
    with served(MultiLabelFolder.create(tmp_path / "few", few)) as server:
        facts = server.get("/summary").json()
        assert (facts["held_out"], facts["labels"][0]["average_precision"]) == (None, None)
        assert server.post("/predict", files=files((("ring",), 30))).status_code == 200
