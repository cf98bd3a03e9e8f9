"""Routes about the model and the server: summary, map, downloads, export, health and metrics."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving import ENCODER, KINDS, drawings, refused, served, teach


@pytest.mark.slow
def test_map_and_summary(client: Any) -> None:
    for kind in KINDS[:3]:
        teach(client, kind, *range(4))
    drawn = client.get("/map").json()
    assert [dot["id"] for dot in drawn["dots"]] == list(range(12))
    assert 0.5 < drawn["share"] <= 1
    assert client.get("/map").json() == drawn
    assert all(0 <= dot[axis] <= 1 for dot in drawn["dots"] for axis in "xy")
    facts = client.get("/summary").json()
    assert (facts["name"], facts["classes"], facts["images"], facts["encoder"]) == ("letters", 3, 12, ENCODER)
    assert facts["trust"]["tested"] == 12
    assert facts["limits"]["files"] == 64


def test_summary_is_json(taught: Any) -> None:
    json.dumps(taught.get("/summary").json(), allow_nan=False)


@pytest.mark.slow
def test_a_mislabelled_image_is_a_suspect(client: Any) -> None:
    for kind in KINDS[:3]:
        teach(client, kind, *range(6))
    teach(client, "comb", 1, name="ring")
    teach(client, "comb", *range(5, 11))
    (suspect,) = client.get("/summary").json()["suspects"]
    assert (suspect["item"], suspect["label"], suspect["likelier"]) == ("comb1.png", "ring", "comb")


def test_the_summary_lists_near_copies(taught: Any, folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By number, and by what their files were called."""
    assert taught.get("/summary").json()["copies"] == []
    monkeypatch.setattr(type(folder.model), "copies", property(lambda _: [[0, 1]]))
    named = [{"id": 0, "item": "ring0.png"}, {"id": 1, "item": "ring1.png"}]
    assert taught.get("/summary").json()["copies"] == [named]


def test_a_downloaded_model_opens(taught: Any, tmp_path: Path) -> None:
    from metarep.model.folder import ModelFolder

    answer = taught.get("/model")
    assert answer.headers["content-type"] == "application/zip"
    assert "letters.zip" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        archive.extractall(tmp_path / "unpacked")
    copy = ModelFolder.open(tmp_path / "unpacked" / "letters")
    assert copy.representation.name == ENCODER
    assert copy.model.gallery.names == ("ring", "cross")
    assert copy.image(3).read_bytes() == taught.get("/images/3").content


@pytest.mark.slow
def test_an_exported_graph_answers_as_the_server_does(taught: Any, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    answer = taught.get("/model.onnx")
    assert answer.status_code == 200, answer.text
    assert "letters.onnx" in answer.headers["content-disposition"]
    session = runtime.InferenceSession(answer.content)
    pixels = np.asarray(Image.open(io.BytesIO(taught.get("/images/0").content)))
    probabilities = session.run(["probabilities"], {"images": pixels[None, None]})[0][0]
    said = taught.post("/predict", files=[("files", taught.get("/images/0").content)]).json()["answers"][0]
    assert probabilities == pytest.approx([said["probabilities"][name] for name in ("ring", "cross")], abs=1e-4)


def test_an_impossible_export_is_refused(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    teach(client, "ring", 0)
    refused(client.get("/model.onnx"), 409, "needs two classes")
    teach(client, "cross", 0)
    monkeypatch.setattr("metarep.app.exporter.find_spec", lambda name: None if name == "onnxscript" else name)
    refused(client.get("/model.onnx"), 501, "ONNX export needs onnxscript: pip install 'metarep[onnx]'")


def test_health_metrics_and_openapi(taught: Any) -> None:
    assert taught.get("/health").json()["status"] == "ok"
    taught.post("/predict", files=drawings("files", "ring", 3))
    taught.get("/nothing/here")
    lines = taught.get("/metrics").text.splitlines()
    assert "metarep_classes 2.0" in lines
    assert "metarep_images 4.0" in lines
    assert "metarep_learned_total 4.0" in lines
    assert 'metarep_predictions_total{known="true"} 1.0' in lines
    assert 'metarep_requests_total{method="POST",route="/predict",status="200"} 1.0' in lines
    assert 'metarep_requests_total{method="GET",route="other",status="404"} 1.0' in lines
    assert 'metarep_batch_images_bucket{le="2.0"} 3.0' in lines
    for line in lines:
        name, _, value = line.rpartition(" ")
        assert line.startswith(("# HELP ", "# TYPE ")) or (name and float(value) >= 0), line
    described = taught.get("/openapi.json").json()
    assert {
        "/predict",
        "/search",
        "/classes",
        "/images/{number}",
        "/map",
        "/model",
        "/model.onnx",
        "/undo",
        "/health",
    } <= set(described["paths"])
    for path in described["paths"].values():
        for operation in path.values():
            assert operation.get("description"), "a route says what it does"


def test_a_damaged_folder_is_an_error_of_the_server(taught: Any, folder: Any) -> None:
    (folder.path / "gallery.safetensors").write_bytes(b"x" * 100)
    for path in ("/classes", "/health"):
        detail = refused(taught.get(path), 503, "gallery.safetensors is damaged")
        assert str(folder.path.parent) not in detail, "where it lies is nobody's business"


def test_a_stopped_server_stores_accuracy_and_thresholds(folder: Any) -> None:
    from metarep.machine.files import read_tensors

    with served(folder) as client:
        teach(client, "ring", 0, 1, 2)
        teach(client, "cross", 0, 1, 2)
        assert "trust" not in read_tensors(folder.path / "gallery.safetensors")[1]
    assert read_tensors(folder.path / "gallery.safetensors")[1]["trust"]["tested"] == 6
    assert "trust" in vars(type(folder).open(folder.path).model)
