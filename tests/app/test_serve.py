"""The server: what each route answers, what is refused and how, and that writers lose nothing."""

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving import ENCODER, KINDS, drawing

pytest.importorskip("fastapi", reason="the server needs fastapi: pip install 'metarep[serve]'")
pytest.importorskip("multipart", reason="the server needs python-multipart: pip install 'metarep[serve]'")
pytest.importorskip("httpx2", reason="its test client needs httpx2: pip install 'metarep[test]'")

HOST = "http://localhost:8000"


@pytest.fixture(scope="module")
def representation() -> Any:
    from metarep.weights.named import load_representation

    return load_representation(ENCODER)


@pytest.fixture
def folder(representation: Any, tmp_path: Path) -> Any:
    """A new and empty model."""
    from metarep.model.folder import ModelFolder
    from metarep.model.gallery import Gallery
    from metarep.model.model import Model

    return ModelFolder.create(tmp_path / "letters", Model(representation, None, Gallery.empty()))


def served(folder: Any, **options: Any) -> Any:
    from fastapi.testclient import TestClient

    from metarep.app.api import create_app
    from metarep.app.guard import LOOPBACK
    from metarep.app.limits import Limits

    limits = {name: options.pop(name) for name in list(options) if hasattr(Limits, name)}
    app = create_app(folder, limits=Limits(**limits), **{"hosts": LOOPBACK, **options})
    return TestClient(app, base_url=HOST, raise_server_exceptions=False)


@pytest.fixture
def client(folder: Any) -> Iterator[Any]:
    """Of an empty model."""
    with served(folder) as opened:
        yield opened


@pytest.fixture
def taught(client: Any) -> Any:
    """With two drawings each of two kinds."""
    for kind in KINDS[:2]:
        teach(client, kind, 0, 1)
    return client


def teach(client: Any, kind: str, *seeds: int, name: str | None = None) -> list[int]:
    answer = client.post("/classes", data={"name": name or kind}, files=drawings("files", kind, *seeds))
    assert answer.status_code == 201, answer.text
    return answer.json()["ids"]


def drawings(field: str, kind: str, *seeds: int) -> list[tuple[str, tuple[str, bytes]]]:
    return [(field, (f"{kind}{seed}.png", drawing(kind, seed))) for seed in seeds]


def counts(client: Any) -> dict[str, int]:
    return {each["name"]: each["images"] for each in client.get("/classes").json()["classes"]}


def refused(answer: Any, status: int, *words: str) -> str:
    """One line of JSON, which says what was wrong, and is returned."""
    assert answer.status_code == status, answer.text
    detail = answer.json()["detail"]
    assert isinstance(detail, str)
    assert "\n" not in detail
    for word in words:
        assert word in detail
    return detail


def test_from_an_empty_model_to_a_prediction(client: Any) -> None:
    assert counts(client) == {}
    assert client.get("/map").json() == {"share": 0, "dots": []}
    assert client.get("/summary").json()["trust"]["accuracy"] is None
    assert client.post("/search", files=drawings("file", "ring", 9)).json() == {"neighbours": []}
    refused(client.post("/predict", files=drawings("files", "ring", 9)), 409, "no classes yet")
    assert teach(client, "ring", 0, 1, 2) == [0, 1, 2]
    (answer,) = client.post("/predict", files=drawings("files", "ring", 9)).json()["answers"]
    assert (answer["label"], answer["probability"], answer["known"]) == ("ring", 1, True)
    assert teach(client, "cross", 0, 1, 2) == [3, 4, 5]
    both = drawings("files", "ring", 9) + drawings("files", "cross", 9)
    answers = client.post("/predict", params={"neighbours": 2}, files=both).json()["answers"]
    assert [each["label"] for each in answers] == ["ring", "cross"]
    assert [each["item"] for each in answers] == ["ring9.png", "cross9.png"]
    for each in answers:
        assert sum(each["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert [near["label"] for near in each["neighbours"]] == [each["label"]] * 2
        assert each["neighbours"][0]["item"].startswith(each["label"])


def test_what_is_told_is_what_the_model_says(taught: Any, folder: Any) -> None:
    model = folder.model
    (own,) = model.answer(model.prepare([drawing("ring", 7)]), 3)
    (told,) = taught.post("/predict", files=drawings("files", "ring", 7)).json()["answers"]
    assert told["label"] == own.label
    assert told["probabilities"] == pytest.approx(own.probabilities, abs=1e-5)
    assert [near["id"] for near in told["neighbours"]] == [near.id for near in own.neighbours]


def test_correct_rename_and_remove(taught: Any) -> None:
    assert taught.patch("/images/0", json={"to": "circle"}).status_code == 204  # the class is new
    assert counts(taught) == {"ring": 1, "cross": 2, "circle": 1}
    refused(taught.patch("/classes", json={"name": "circle", "to": "ring"}), 409, "merge")
    assert taught.patch("/classes", json={"name": "circle", "to": "ring", "merge": True}).status_code == 204
    assert taught.patch("/classes", json={"name": "ring", "to": " o "}).status_code == 204
    assert counts(taught) == {"o": 2, "cross": 2}
    assert taught.delete("/images/0").status_code == 204
    assert taught.delete("/classes", params={"name": "cross"}).status_code == 204
    assert counts(taught) == {"o": 1}
    assert taught.delete("/images/1").status_code == 204
    assert counts(taught) == {}
    assert teach(taught, "ring", 5) == [4], "a number is never given twice"


def test_images_of_a_class(taught: Any) -> None:
    found = taught.get("/classes/images", params={"name": "cross"}).json()
    assert found == {"label": "cross", "images": [{"id": 2, "item": "cross0.png"}, {"id": 3, "item": "cross1.png"}]}
    picture = taught.get("/images/2")
    assert picture.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(picture.content)).size == (28, 28)
    taught.delete("/images/2")
    refused(taught.get("/images/2"), 404, "no image 2")


def test_search_by_an_image_and_by_one_that_is_there(taught: Any) -> None:
    found = taught.post("/search", params={"neighbours": 2}, files=drawings("file", "cross", 8)).json()["neighbours"]
    assert [near["label"] for near in found] == ["cross", "cross"]
    assert found[0]["similarity"] >= found[1]["similarity"]
    found = taught.post("/search", params={"id": 0, "neighbours": 9}).json()["neighbours"]
    assert found[0]["id"] == 1
    assert 0 not in [near["id"] for near in found]
    refused(taught.post("/search"), 422, "one of the two")
    refused(taught.post("/search", params={"id": 77}), 404, "no image 77")


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


def test_a_doubtful_image_is_named(client: Any) -> None:
    for kind in KINDS[:3]:
        teach(client, kind, *range(6))
    teach(client, "comb", 1, name="ring")
    teach(client, "comb", *range(5, 11))
    (suspect,) = client.get("/summary").json()["suspects"]
    assert (suspect["item"], suspect["label"], suspect["likelier"]) == ("comb1.png", "ring", "comb")


CHANGES = {
    "a class removed": ("DELETE", "/classes?name=cross", None),
    "an image removed": ("DELETE", "/images/2", None),
    "the last of a class removed": ("DELETE", "/images/6", None),
    "an image moved": ("PATCH", "/images/2", {"to": "ring"}),
    "renamed": ("PATCH", "/classes", {"name": "cross", "to": "x"}),
    "two made one": ("PATCH", "/classes", {"name": "cross", "to": "ring", "merge": True}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_taken_back(taught: Any, folder: Any, name: str) -> None:
    """All is as it was: order, numbers, names, features and pictures; what was learned meanwhile stays."""
    method, path, body = CHANGES[name]
    teach(taught, "comb", 5)
    teach(taught, "steps", 1, 2)
    teach(taught, "comb", 6)
    gallery, classes = folder.model.gallery, taught.get("/classes").json()["classes"]
    pictures = {number: taught.get(f"/images/{number}").content for number in gallery.ids.tolist()}
    if name == "the last of a class removed":
        taught.delete("/images/4")
        gallery, classes = folder.model.gallery, taught.get("/classes").json()["classes"]
    answer = taught.request(method, path, json=body)
    assert (answer.status_code, counts(taught) != {each["name"]: each["images"] for each in classes}) == (204, True)
    (new,) = teach(taught, "steps", 3)
    number = answer.headers["metarep-undo"]
    assert taught.post("/undo", params={"change": number}).status_code == 204
    assert taught.get(f"/images/{new}").status_code == 200
    taught.delete(f"/images/{new}")
    now = folder.model.gallery
    assert taught.get("/classes").json()["classes"] == classes
    assert (now.items, now.names, now.ids.tolist()) == (gallery.items, gallery.names, gallery.ids.tolist())
    assert (now.rows == gallery.rows).all()
    assert {i: taught.get(f"/images/{i}").content for i in now.ids.tolist()} == {
        i: pictures[i] for i in now.ids.tolist()
    }
    refused(taught.post("/undo", params={"change": number}), 404, "can no longer be taken back")


def test_the_only_class_is_taken_back(client: Any) -> None:
    teach(client, "ring", 0, 1)
    number = client.delete("/classes", params={"name": "ring"}).headers["metarep-undo"]
    assert counts(client) == {}
    client.post("/undo", params={"change": number})
    assert counts(client) == {"ring": 2}


def test_what_is_taken_back_keeps_the_limits_too(folder: Any) -> None:
    with served(folder, classes=2) as client:
        teach(client, "ring", 0, 1)
        teach(client, "cross", 0)
        number = client.delete("/classes", params={"name": "ring"}).headers["metarep-undo"]
        teach(client, "comb", 0)
        refused(client.post("/undo", params={"change": number}), 413, "at most 2 classes")
        assert not folder.image(0).exists()
        client.delete("/classes", params={"name": "comb"})
        assert client.post("/undo", params={"change": number}).status_code == 204
        assert counts(client) == {"ring": 2, "cross": 1}


def test_only_the_last_changes_are_remembered(taught: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metarep.app.history.MOST", 2)
    moves = [taught.patch("/images/0", json={"to": f"class {i}"}).headers["metarep-undo"] for i in range(3)]
    refused(taught.post("/undo", params={"change": moves[0]}), 404, "the last 2 of this server")
    monkeypatch.setattr("metarep.app.history.MOST_BYTES", 1)
    gone = taught.delete("/images/1").headers["metarep-undo"]
    refused(taught.post("/undo", params={"change": moves[2]}), 404)
    assert taught.post("/undo", params={"change": gone}).status_code == 204


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


def test_an_export_that_cannot_be_made(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    teach(client, "ring", 0)
    refused(client.get("/model.onnx"), 409, "needs two classes")
    teach(client, "cross", 0)
    monkeypatch.setattr("metarep.app.exporter.find_spec", lambda name: None if name == "onnxscript" else name)
    refused(client.get("/model.onnx"), 501, "ONNX export needs onnxscript: pip install 'metarep[onnx]'")


def test_near_copies_are_named(taught: Any, folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_everything_it_brings_is_its_own(client: Any) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert client.get("/docs").status_code == 404  # it would fetch scripts from elsewhere
    assert client.get("/page/../api.py").status_code == 404
    assert client.get("/page/%2e%2e/api.py").status_code == 404


BAD_FILES = {
    "text": (b"not an image", "no image of a known kind"),
    "nothing": (b"", "empty file"),
    "half": (drawing("ring", 0)[:200], "damaged"),
    "script": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "no image of a known kind"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_named_and_nothing_is_learned(taught: Any, name: str) -> None:
    content, why = BAD_FILES[name]
    files = [*drawings("files", "ring", 5), ("files", ("photo.png", content, "image/png"))]
    for answer in (taught.post("/classes", data={"name": "ring"}, files=files), taught.post("/predict", files=files)):
        refused(answer, 422, "photo.png", why)
        assert answer.json()["advice"] == "replace or remove it", "and nothing that a request cannot say"
    assert counts(taught) == {"ring": 2, "cross": 2}


def test_content_decides_not_the_name(client: Any, folder: Any) -> None:
    before = sorted(folder.path.parent.rglob("*"))
    name = "../../../../evil/\x1b[31m<b>x.exe"
    files = [("files", (name, drawing("ring", 0, file="JPEG"), "application/x-msdownload"))]
    assert client.post("/classes", data={"name": "../ring"}, files=files).status_code == 201
    (kept,) = client.get("/classes/images", params={"name": "../ring"}).json()["images"]
    assert kept["item"] == "[31m<b>x.exe"
    assert counts(client) == {"../ring": 1}, "a name is a name, not a place"
    new = {str(path.relative_to(folder.path)) for path in folder.path.parent.rglob("*") if path not in before}
    assert new == {"images", "images/0.png", ".lock"}


def bomb() -> bytes:
    """65 kB that would be a gigabyte."""
    content = io.BytesIO()
    Image.new("L", (8000, 8000)).save(content, "PNG", compress_level=9)
    return content.getvalue()


def test_limits(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(folder, megabytes=1, megapixels=20, files=3, images=4, classes=2) as client:
        assert teach(client, "ring", 0, 1, 2)
        refused(client.post("/predict", files=drawings("files", "ring", 0, 1, 2, 3)), 413, "4 images", "at most 3")
        answer = client.post("/classes", data={"name": "ring"}, files=drawings("files", "ring", 3, 4))
        refused(answer, 413, "'ring' would have 5 images", "at most 4")
        teach(client, "cross", 0, 1)
        refused(client.post("/classes", data={"name": "a"}, files=drawings("files", "comb", 1)), 413, "2 classes")
        refused(client.patch("/images/0", json={"to": "third"}), 413, "2 classes")
        merge = {"name": "cross", "to": "ring", "merge": True}
        refused(client.patch("/classes", json=merge), 413, "would have 5")
        refused(client.post("/predict", files=[("files", ("bomb.png", bomb()))]), 413, "bomb.png", "8000 x 8000", "20")
        noise = np.random.default_rng(0).bytes(2 << 20)
        refused(client.post("/predict", files=[("files", ("big.png", noise))]), 413, "at most 1 MiB")
        assert counts(client) == {"ring": 3, "cross": 2}


def test_a_body_longer_than_it_says_is_cut_off(folder: Any) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        for _ in range(40):
            yield bytes(1 << 16)

    with served(folder, megabytes=1) as client:
        headers = {"content-type": "multipart/form-data; boundary=x", "transfer-encoding": "chunked"}
        refused(client.post("/predict", content=chunks(), headers=headers), 413, "at most 1 MiB")


def test_a_slow_body_is_given_up() -> None:
    import asyncio

    from fastapi import HTTPException

    from metarep.app.guard import Guard
    from metarep.app.limits import Limits
    from metarep.app.metrics import Metrics

    async def never() -> Any:
        await asyncio.sleep(60)

    async def nothing(*_: Any) -> None: ...

    guard = Guard(nothing, limits=Limits(patience=0.05), metrics=Metrics(), token=None, hosts=None)
    with pytest.raises(HTTPException) as caught:
        asyncio.run(guard._measured(never)())
    assert caught.value.status_code == 408


def test_too_many_at_a_time_are_told_to_come_again(taught: Any, folder: Any) -> None:
    guard = taught.app.middleware_stack
    while type(guard).__name__ != "Guard":
        guard = guard.app
    guard.in_flight = 64
    answer = taught.get("/classes")
    refused(answer, 429, "64 requests")
    assert answer.headers["retry-after"] == "1"
    assert taught.get("/health").status_code == 200, "a full server still says how it is"
    guard.in_flight = 0
    assert taught.get("/classes").status_code == 200
    assert guard.in_flight == 0


BAD_NAMES = {
    "": "needs a name",
    "   ": "needs a name",
    "a" * 81: "81 characters",
    "bell\x07": "cannot be seen",
    "two\nlines": "cannot be seen",
    "gpj.\u202eexe": "cannot be seen",
    "ring\u200b": "cannot be seen",
    "\u0301": "cannot be seen",
}


@pytest.mark.parametrize("name", BAD_NAMES, ids=range(len(BAD_NAMES)))
def test_bad_names(taught: Any, name: str) -> None:
    words = BAD_NAMES[name] if name else "name"  # an empty field is none at all
    refused(taught.post("/classes", data={"name": name}, files=drawings("files", "ring", 5)), 422, words)
    refused(taught.patch("/classes", json={"name": "ring", "to": name}), 422, BAD_NAMES[name])
    refused(taught.patch("/images/0", json={"to": name}), 422, BAD_NAMES[name])


@pytest.mark.parametrize("name", ["蛾", "Ñandú 2", "a/b", "..", "<b>", "🦋", "می\u200cخ", "👩\u200d🌾"])
def test_names_of_any_script(taught: Any, name: str) -> None:
    teach(taught, "comb", 0, name=name)
    assert counts(taught)[name] == 1
    assert taught.get("/classes/images", params={"name": name}).status_code == 200
    assert taught.delete("/classes", params={"name": name}).status_code == 204


NOTHING = [
    ("GET", "/classes/images?name=moth", None, 404),
    ("DELETE", "/classes?name=moth", None, 404),
    ("PATCH", "/classes", {"name": "moth", "to": "fly"}, 404),
    ("PATCH", "/images/99", {"to": "ring"}, 404),
    ("DELETE", "/images/99", None, 404),
    ("GET", "/images/99", None, 404),
    ("GET", "/images/..%2f..%2fetc", None, 404),
    ("GET", "/images/x", None, 422),
    ("GET", "/images/99999999999999999999999", None, 404),
    ("PATCH", "/classes", {"name": "ring"}, 422),
    ("PATCH", "/images/0", [], 422),
    ("POST", "/predict", None, 422),
    ("POST", "/predict?neighbours=1000", None, 422),
    ("POST", "/classes", None, 422),
    ("PUT", "/classes", None, 405),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), NOTHING)
def test_what_is_not_there_and_what_makes_no_sense(taught: Any, method: str, path: str, body: Any, status: int) -> None:
    refused(taught.request(method, path, json=body), status)


def test_a_token_is_asked_for(folder: Any) -> None:
    token = "a token of some length"
    with served(folder, token=token, hosts=None) as client:
        assert client.get("/").status_code == 200
        assert client.get("/health").status_code == 200
        for wrong in (None, "", "Bearer", "Bearer a token", f"Basic {token}", token + "x"):
            headers = {"authorization": wrong} if wrong is not None else {}
            for path in ("/classes", "/summary", "/metrics", "/model", "/images/0", "/openapi.json"):
                answer = client.get(path, headers=headers)
                refused(answer, 401, "token")
                assert answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/classes", headers={"authorization": f"Bearer {token}"}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "", "[::2]"])
def test_another_name_of_this_machine_is_refused(client: Any, host: str) -> None:
    refused(client.get("/classes", headers={"host": host}), 403, "localhost")


@pytest.mark.parametrize("host", ["127.0.0.1:1", "LOCALHOST", "[::1]:8000", "localhost"])
def test_its_own_names_are_not(client: Any, host: str) -> None:
    assert client.get("/classes", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:9", "http://localhost:8000.evil"])
def test_pages_of_other_sites_may_not_ask(taught: Any, origin: str) -> None:
    answer = taught.delete("/classes", params={"name": "ring"}, headers={"origin": origin})
    refused(answer, 403, "another site")
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert counts(taught) == {"ring": 2, "cross": 2}
    assert taught.get("/classes", headers={"origin": HOST}).status_code == 200


def test_what_comes_together_is_encoded_together(taught: Any, folder: Any) -> None:
    service = taught.app.state.service
    batches: list[int] = []
    service.batcher.seen, service.batcher.wait = batches.append, 0.5
    kinds = [KINDS[i % 2] for i in range(8)]

    def predict(i: int) -> str:
        return taught.post("/predict", files=drawings("files", kinds[i], 20 + i)).json()["answers"][0]["label"]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(predict, range(8))) == kinds, "each gets the answer to its own image"
    assert sum(batches) == 8
    assert max(batches) > 1


def test_one_that_fails_does_not_take_others_with_it(taught: Any) -> None:
    import torch

    batcher = taught.app.state.service.batcher

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    pixels = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    bad, good = batcher.submit(pixels, fail), batcher.submit(pixels, lambda model, rows: tuple(rows.shape))
    assert isinstance(bad.exception(timeout=10), ZeroDivisionError)
    assert good.result(timeout=10) == (1, 64)
    assert batcher.alive


def test_two_writers_lose_nothing(taught: Any, folder: Any) -> None:
    """The server, and another that has opened the same folder by itself, as ``metarep add`` does."""
    from metarep.model.folder import ModelFolder

    def besides() -> None:
        other = ModelFolder.open(folder.path)
        for seed in range(12):
            other.learn([drawing("comb", seed)], ["comb"], [f"comb{seed}"])

    thread = threading.Thread(target=besides)
    thread.start()
    for seed in range(100, 112):
        teach(taught, "steps", seed)
    thread.join()
    assert counts(taught) == {"ring": 2, "cross": 2, "comb": 12, "steps": 12}
    assert len({number for each in taught.get("/classes").json()["classes"] for number in each["ids"]}) == 28


def test_every_state_of_a_folder_has_its_own_stamp(folder: Any) -> None:
    """Files of one clock tick: a second handle must still see what the first has written."""
    from metarep.model.folder import ModelFolder

    other = ModelFolder.open(folder.path)
    model = folder.model
    pixels, rows = next(model.read([drawing("ring", 0)]))
    for count in range(1, 30):
        folder.keep(list(pixels), rows, ["ring"], ["a"])
        assert len(other.model.gallery) == count


def test_a_damaged_folder_is_trouble_of_the_server(taught: Any, folder: Any) -> None:
    (folder.path / "gallery.safetensors").write_bytes(b"x" * 100)
    for path in ("/classes", "/health"):
        detail = refused(taught.get(path), 503, "gallery.safetensors is damaged")
        assert str(folder.path.parent) not in detail, "where it lies is nobody's business"


def test_summary_is_json(taught: Any) -> None:
    json.dumps(taught.get("/summary").json(), allow_nan=False)


REFUSED = {
    "nothing": ("there is no model", "--encoder auto"),
    "letters --encoder omniglot-protonet": ("is there already", "leave --encoder out"),
    "letters --host 0.0.0.0": ("others can reach 0.0.0.0", "at least 16 characters", "--token "),
    "letters --host 0.0.0.0 --token short": ("others can reach 0.0.0.0", "at least 16 characters"),
    "letters --called moths.example": ("others can reach moths.example",),
    "letters --token=": ("the token is empty",),
    "letters --token sécrét-tökén-abcdefgh": ("other letters than those of ASCII",),
    "letters --cert no.pem --key no.key": ("no.pem and no.key are no certificate and its key: No such file",),
    "letters --port 99999": ("--port must be 0 to 65535, not 99999",),
    "letters --most-files 0": ("--most-files must be a number above 0",),
    "letters --most-files 1001": ("--most-files must be at most 1000, not 1001",),
    "letters --cert a.pem": ("--cert and --key belong together",),
    "letters --host 192.0.2.1 --token 0123456789abcdef": ("192.0.2.1:8000 cannot be listened at", "--port 0"),
}


@pytest.mark.parametrize("line", REFUSED)
def test_the_command_says_what_would_have_worked(
    folder: Any, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from metarep.cli import main

    monkeypatch.chdir(folder.path.parent)
    monkeypatch.delenv("METAREP_TOKEN", raising=False)
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: pytest.fail("it serves"))
    assert main(["serve", *line.split()]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for words in REFUSED[line]:
        assert words in said


def test_the_command_makes_an_empty_model_and_serves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from metarep.cli import main
    from metarep.model.folder import ModelFolder

    served: list[Any] = []
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: served.append((self.config.app, sockets)))
    flags = ["--encoder", ENCODER, "--port", "0", "--most-images", "7"]
    assert main(["serve", str(tmp_path / "new"), *flags]) == 0
    assert ModelFolder.open(tmp_path / "new").model.gallery.names == ()
    ((app, _),) = served
    assert app.state.service.limits.images == 7
    said = capsys.readouterr().out
    assert "0 classes, 0 images" in said
    assert "page: http://127.0.0.1:" in said


def test_a_server_that_stops_leaves_its_trust_with_the_model(folder: Any) -> None:
    from metarep.machine.files import read_tensors

    with served(folder) as client:
        teach(client, "ring", 0, 1, 2)
        teach(client, "cross", 0, 1, 2)
        assert "trust" not in read_tensors(folder.path / "gallery.safetensors")[1]
    assert read_tensors(folder.path / "gallery.safetensors")[1]["trust"]["tested"] == 6
    assert "trust" in vars(type(folder).open(folder.path).model)
