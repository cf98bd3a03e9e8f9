"""Bad input and limits: what the server refuses, with which status, and that nothing of it is kept."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving import KINDS, counts, drawing, drawings, refused, served, teach

BAD_FILES = {
    "text": (b"not an image", "image of a known kind"),
    "nothing": (b"", "empty file"),
    "half": (drawing("ring", 0)[:200], "damaged"),
    "script": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "image of a known kind"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_named_and_nothing_is_learned(taught: Any, name: str) -> None:
    content, why = BAD_FILES[name]
    files = [*drawings("files", "ring", 5), ("files", ("photo.png", content, "image/png"))]
    for answer in (taught.post("/classes", data={"name": "ring"}, files=files), taught.post("/predict", files=files)):
        refused(answer, 422, "photo.png", why)
        assert answer.json()["advice"] == "replace or remove it", "options that a request does not have are not named"
    assert counts(taught) == {"ring": 2, "cross": 2}


def test_the_content_of_a_file_decides_and_not_its_name(client: Any, folder: Any) -> None:
    before = sorted(folder.path.parent.rglob("*"))
    name = "../../../../evil/\x1b[31m<b>x.exe"
    files = [("files", (name, drawing("ring", 0, file="JPEG"), "application/x-msdownload"))]
    assert client.post("/classes", data={"name": "../ring"}, files=files).status_code == 201
    (kept,) = client.get("/classes/images", params={"name": "../ring"}).json()["images"]
    assert kept["item"] == "[31m<b>x.exe"
    assert counts(client) == {"../ring": 1}, "a class name is never used as a path"
    new = {str(path.relative_to(folder.path)) for path in folder.path.parent.rglob("*") if path not in before}
    assert new == {"images", "images/0.png", ".lock"}


def bomb() -> bytes:
    """Return a PNG of 65 kB with 64 megapixels."""
    content = io.BytesIO()
    Image.new("L", (8000, 8000)).save(content, "PNG", compress_level=9)
    return content.getvalue()


@pytest.mark.slow
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
        refused(client.post("/predict", files=[("files", ("big.png", noise))]), 413, "larger than 1 MiB")
        assert counts(client) == {"ring": 3, "cross": 2}


@pytest.fixture(scope="module")
def steady(representation: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of a server that has learned two drawings of two kinds, for requests that must change nothing."""
    from metarep.model.folder import ModelFolder
    from metarep.model.gallery import Gallery
    from metarep.model.model import Model

    folder = ModelFolder.create(
        tmp_path_factory.mktemp("steady") / "letters", Model(representation, None, Gallery.empty())
    )
    with served(folder) as opened:
        for kind in KINDS[:2]:
            teach(opened, kind, 0, 1)
        yield opened
        assert counts(opened) == dict.fromkeys(KINDS[:2], 2)


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
def test_bad_class_names_are_refused(steady: Any, name: str) -> None:
    words = BAD_NAMES[name] if name else "name"  # an empty field is none at all
    refused(steady.post("/classes", data={"name": name}, files=drawings("files", "ring", 5)), 422, words)
    refused(steady.patch("/classes", json={"name": "ring", "to": name}), 422, BAD_NAMES[name])
    refused(steady.patch("/images/0", json={"to": name}), 422, BAD_NAMES[name])


BAD_REQUESTS = [
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


@pytest.mark.parametrize(("method", "path", "body", "status"), BAD_REQUESTS)
def test_missing_things_and_malformed_requests_are_refused(
    steady: Any, method: str, path: str, body: Any, status: int
) -> None:
    refused(steady.request(method, path, json=body), status)
