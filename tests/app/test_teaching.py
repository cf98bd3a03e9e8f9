"""Changes of the model: adding, moving, renaming and removing, undo, and two writers at the same time."""

import io
import threading
from typing import Any

import pytest
from PIL import Image
from serving import counts, drawing, refused, served, teach
from thinning import few


def test_move_rename_merge_and_remove(taught: Any) -> None:
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
    images = taught.get("/classes/images", params={"name": "cross"}).json()
    assert images == {"label": "cross", "images": [{"id": 2, "item": "cross0.png"}, {"id": 3, "item": "cross1.png"}]}
    picture = taught.get("/images/2")
    assert picture.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(picture.content)).size == (28, 28)
    taught.delete("/images/2")
    refused(taught.get("/images/2"), 404, "no image 2")


CHANGES = {
    "a class removed": ("DELETE", "/classes?name=cross", None),
    "an image moved": ("PATCH", "/images/2", {"to": "ring"}),
    "two made one": ("PATCH", "/classes", {"name": "cross", "to": "ring", "merge": True}),
    "the last of a class removed": ("DELETE", "/images/6", None),
    "an image removed": ("DELETE", "/images/2", None),
    "renamed": ("PATCH", "/classes", {"name": "cross", "to": "x"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", few(CHANGES, 4))
def test_undo_restores_everything(taught: Any, folder: Any, name: str) -> None:
    """Order, numbers, names, features and pictures are as they were before; images learned since then stay."""
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
    refused(taught.post("/undo", params={"change": number}), 404, "can no longer be undone")


def test_the_only_class_can_be_restored(client: Any) -> None:
    teach(client, "ring", 0, 1)
    number = client.delete("/classes", params={"name": "ring"}).headers["metarep-undo"]
    assert counts(client) == {}
    client.post("/undo", params={"change": number})
    assert counts(client) == {"ring": 2}


@pytest.mark.slow
def test_undo_keeps_the_limits(folder: Any) -> None:
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


def test_only_the_last_changes_can_be_undone(taught: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metarep.app.changes.MOST_CHANGES", 2)
    moves = [taught.patch("/images/0", json={"to": f"class {i}"}).headers["metarep-undo"] for i in range(3)]
    refused(taught.post("/undo", params={"change": moves[0]}), 404, "the last 2 of this server")
    monkeypatch.setattr("metarep.app.changes.MOST_BYTES", 1)
    gone = taught.delete("/images/1").headers["metarep-undo"]
    refused(taught.post("/undo", params={"change": moves[2]}), 404)
    assert taught.post("/undo", params={"change": gone}).status_code == 204


@pytest.mark.parametrize("name", few(["蛾", "a/b", "..", "Ñandú 2", "<b>", "🦋", "می\u200cخ", "👩\u200d🌾"], 3))
def test_class_names_of_any_script(taught: Any, name: str) -> None:
    teach(taught, "comb", 0, name=name)
    assert counts(taught)[name] == 1
    assert taught.get("/classes/images", params={"name": name}).status_code == 200
    assert taught.delete("/classes", params={"name": name}).status_code == 204


@pytest.mark.slow
def test_two_writers_lose_nothing(taught: Any, folder: Any) -> None:
    """The writers are the server and a second handle on the same folder, as ``metarep add`` has one."""
    from metarep.model.folder import ModelFolder

    def write_too() -> None:
        other = ModelFolder.open(folder.path)
        for seed in range(12):
            other.learn([drawing("comb", seed)], ["comb"], [f"comb{seed}"])

    thread = threading.Thread(target=write_too)
    thread.start()
    for seed in range(100, 112):
        teach(taught, "steps", seed)
    thread.join()
    assert counts(taught) == {"ring": 2, "cross": 2, "comb": 12, "steps": 12}
    assert len({number for each in taught.get("/classes").json()["classes"] for number in each["ids"]}) == 28


@pytest.mark.slow
def test_every_state_of_a_folder_has_its_own_stamp(folder: Any) -> None:
    """Files of one clock tick: a second handle must still see what the first has written."""
    from metarep.model.folder import ModelFolder

    other = ModelFolder.open(folder.path)
    model = folder.model
    pixels, rows = next(model.read([drawing("ring", 0)]))
    for count in range(1, 30):
        folder.keep(list(pixels), rows, ["ring"], ["a"])
        assert len(other.model.gallery) == count
