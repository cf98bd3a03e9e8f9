"""Class names: one rule at every gate, names that are the same, and names that only look so."""

import io
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from thinning import few

from metarep.cli import main
from metarep.data.class_names import BadNameError, clean_name, look_alike_lines, look_alikes
from metarep.data.datasets import load_dataset
from metarep.data.reading.folder_tree import FolderWarning
from metarep.errors import MetarepError
from metarep.model.classifier import FewShotClassifier
from metarep.model.folder import ModelFolder
from metarep.model.gallery import Gallery
from metarep.model.model import Model
from metarep.weights.named import Representation, load_representation

ENCODER = "omniglot-protonet"
MAC, ELSEWHERE = "cafe\u0301", "caf\u00e9"  # how its file system spells it, and others'
SPELLED = [MAC, f" {ELSEWHERE}\u00a0", ELSEWHERE]
BAD = {
    "": "needs a name",
    "\u00a0\u3000": "needs a name",
    "bell\x07": "call it 'bell'",
    "ring\u200b": "call it 'ring'",
    "gpj.\u202eexe": "call it 'gpj.exe'",
    "\u0301": "use letters",
    "\u3164": "use letters",
    "a" * 256: "256 characters",
}


@cache
def representation() -> Representation:
    return load_representation(ENCODER)


def picture(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (7, 7), dtype=np.uint8)
    return Image.fromarray(noise).resize((28, 28), Image.Resampling.NEAREST)


def put(place: Path, *seeds: int) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        picture(seed).save(place / f"{seed}.png")
    return place


def new_model(names: tuple[str, ...] = ()) -> Model:
    """A model whose gallery was written by somebody who had no rule for names; an image a class."""
    model = Model(representation())
    if not names:
        return model
    rows = model.prepare([picture(i) for i in range(len(names))])
    place = torch.arange(len(names))
    return model.changed(Gallery(rows, place, place, tuple(f"{i}.png" for i in place.tolist()), names, len(names)))


# Each gate takes names, an image of each, and gives back what the classes are called.


def by_gallery(names: list[str], root: Path) -> list[str]:
    return list(Gallery.empty().add(torch.rand(len(names), 4), names, names).names)


def by_fit(names: list[str], root: Path) -> list[str]:
    for seed, name in enumerate([*names, "moth"]):
        put(root / "photos" / name, seed)
    if main(["fit", str(root / "photos"), "--out", str(root / "model"), "--encoder", ENCODER, "--debug"]):
        raise AssertionError
    return [name for name in ModelFolder.open(root / "model").model.gallery.names if name != "moth"]


def by_add(names: list[str], root: Path) -> list[str]:
    folder = ModelFolder.create(root / "model", new_model())
    for seed, name in enumerate(names):
        put(root / "images", seed)
        main(["add", str(folder.path), str(root / "images" / f"{seed}.png"), "--to", name, "--debug"])
    return list(folder.model.gallery.names)


def by_folders(names: list[str], root: Path) -> list[str]:
    for seed, name in enumerate(names):
        put(root / "photos" / name, seed)
    return list(load_dataset(f"folder:{root / 'photos'}", "all", size=8).labels.names)


def by_estimator(names: list[str], root: Path) -> list[str]:
    fitted = FewShotClassifier().fit(np.eye(max(2, len(names) + 1)), [*names, "moth"])
    assert fitted.classes_.tolist() == sorted(fitted.model_.gallery.names)
    return [name for name in fitted.classes_ if name != "moth"]


def by_server(names: list[str], root: Path) -> list[str]:
    pytest.importorskip("fastapi", reason="the server needs fastapi: pip install 'metarep[serve]'")
    pytest.importorskip("multipart", reason="the server needs python-multipart: pip install 'metarep[serve]'")
    pytest.importorskip("httpx2", reason="its test client needs httpx2: pip install 'metarep[test]'")
    from fastapi.testclient import TestClient

    from metarep.app.api import create_app

    folder = ModelFolder.create(root / "model", new_model())
    with TestClient(create_app(folder), base_url="http://localhost:8000") as client:
        for seed, name in enumerate(names):
            content = io.BytesIO()
            picture(seed).save(content, "PNG")
            files = [("files", (f"{seed}.png", content.getvalue()))]
            answer = client.post("/classes", data={"name": name}, files=files)
            if answer.status_code == 422:
                raise MetarepError(answer.json()["detail"])
            assert answer.json()["label"] == clean_name(name)
        classes = client.get("/classes").json()["classes"]
        assert {each["name"]: each["alike"] for each in classes} == {
            one: [b if a == one else a for a, b in look_alikes(map(clean_name, names)) if one in (a, b)]
            for one in map(clean_name, names)
        }
        return [each["name"] for each in classes]


GATES = [by_gallery, by_add, by_folders, by_estimator, by_server, by_fit]
Gate = Callable[[list[str], Path], list[str]]


@pytest.fixture(autouse=True)
def by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own."""
    monkeypatch.setenv("METAREP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("METAREP_DATA", raising=False)


@pytest.mark.parametrize("gate", few(GATES, 5))
def test_names_that_are_the_same_are_one_class(gate: Gate, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FolderWarning)
        assert gate(SPELLED, tmp_path) == [ELSEWHERE]


@pytest.mark.slow
@pytest.mark.parametrize("gate", GATES)
def test_names_that_only_look_the_same_are_warned_of_and_kept(
    gate: Gate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["Minaret", "minaret", "cat", "c\u0430t"]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert sorted(gate(names, tmp_path)) == sorted(names)
    said = [str(each.message) for each in told] + capsys.readouterr().err.splitlines()
    if gate not in (by_gallery, by_server):  # which answers with it
        assert sum("'Minaret' and 'minaret' differ in upper and lower case alone" in text for text in said) == 1
        assert sum(r"'cat' and 'c\u0430t' look the same" in text for text in said) == 1


@pytest.mark.parametrize("gate", GATES)
def test_an_invisible_name_is_refused_everywhere(gate: Gate, tmp_path: Path) -> None:
    with pytest.raises(MetarepError, match="call it 'ring'"):
        gate(["ring\u200b"], tmp_path)


@pytest.mark.parametrize("name", BAD, ids=range(len(BAD)))
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(BadNameError, match=BAD[name]):
        clean_name(name)


@pytest.mark.parametrize(
    "name", ["蛾", "Ñandú 2", "a/b", "..", "<b>", "🦋", "می\u200cخ", "👩\u200d🌾", "O0", "m²", "a" * 255]
)
def test_names_of_any_script_stay_as_they_are(name: str) -> None:
    assert clean_name(name) == name
    assert clean_name(f" {name}\u3000") == name


def test_which_names_look_the_same() -> None:
    alike = [
        ("moth", "Moth", "МОТН", "mo\u200dth", "ｍｏｔｈ", "𝐦𝐨𝐭𝐡"),  # Cyrillic; joined; wide; bold
        ("вор", "Вор"),
        ("tiger-moth", "tiger–moth"),
        ("O'Hare", "O’Hare"),
        ("❤", "❤\ufe0f"),
    ]
    for group in alike:
        assert look_alikes(group) == [(a, b) for i, b in enumerate(group) for a in group[:i]] or len(group) > 2, group
        assert {b for a, b in look_alikes(group) if a == group[0]} == set(group[1:]), group
    assert look_alikes(["cat", "cats", "car", "cot", "O", "0", "l", "1", "в", "b", "蛾", "蝶"]) == []
    assert look_alikes(["a", "A", "b", "B"], new=["B"]) == [("b", "B")]
    (many,) = look_alike_lines(look_alikes("abcdeABCDE"))
    assert many.startswith(
        "classes differ in upper and lower case alone (5 pairs, such as 'a' and 'A', 'b' and 'B', 'c'"
    )


def test_a_model_that_was_written_before_the_rule(tmp_path: Path) -> None:
    folder = ModelFolder.create(tmp_path / "model", new_model((MAC, "ring\u200b", "moth ")))
    again = ModelFolder.open(folder.path)
    assert again.model.gallery.names == (MAC, "ring\u200b", "moth ")
    assert main(["add", str(folder.path), str(put(tmp_path / ELSEWHERE, 7))]) == 0
    again.learn([picture(8)], ["ring\u200b"], ["8.png"])
    gallery = again.model.gallery
    assert dict(zip(gallery.names, gallery.counts.tolist(), strict=True)) == {MAC: 2, "ring\u200b": 2, "moth ": 1}
    again.rename(ELSEWHERE, ELSEWHERE)
    again.rename("ring\u200b", "ring")
    assert again.model.gallery.names == (ELSEWHERE, "ring", "moth ")
    assert main(["remove", str(folder.path), MAC, "moth"]) == 0
    assert again.model.gallery.names == ("ring",)


def test_two_classes_of_one_name_in_an_old_model_become_one_when_asked(tmp_path: Path) -> None:
    folder = ModelFolder.create(tmp_path / "model", new_model((MAC, ELSEWHERE)))
    assert [folder.model.gallery.called(name) for name in SPELLED] == [MAC, MAC, ELSEWHERE]
    folder.rename(MAC, ELSEWHERE)
    assert folder.model.gallery.names == (ELSEWHERE,)
    assert len(folder.model.gallery) == 2


def test_labels_of_an_estimator_stay_what_they_were() -> None:
    rows = np.eye(6)
    for labels in ([3, 3, 1, 1, 2, 2], [2.0, 2.0, 1.0, 1.0, 3.0, 3.0], [True, True, False, False, True, False]):
        values = np.array(labels)
        fitted = FewShotClassifier().fit(rows, values)
        assert fitted.classes_.dtype == values.dtype
        assert fitted.classes_.tolist() == np.unique(values).tolist()
        assert fitted.score(rows, values) == 1.0
    assert FewShotClassifier().fit(rows, [MAC] * 3 + ["b"] * 3).predict(rows[:1]).tolist() == [MAC]
    mixed = FewShotClassifier().fit(rows[:4], [MAC, "b", ELSEWHERE, "b"])
    assert mixed.classes_.tolist() == ["b", ELSEWHERE]
    assert mixed.predict(rows[:1]).tolist() == [ELSEWHERE]
    mixed.partial_fit(rows[4:], [f"{MAC} ", "c"])
    assert mixed.model_.gallery.counts.tolist() == [3, 2, 1]
    assert mixed.forget(MAC).classes_.tolist() == ["b", "c"]
    with pytest.raises(BadNameError, match="needs a name"):
        FewShotClassifier().fit(rows[:2], ["", "b"])
