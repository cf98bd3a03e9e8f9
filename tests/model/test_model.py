"""From images to a model to answers: gallery, model, folder, classifier, command line."""

import json
import multiprocessing
import os
import shutil
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metarep.cli import main
from metarep.data.datasets.options import LeftOutWarning
from metarep.errors import MetarepError
from metarep.model.classifier import FewShotClassifier
from metarep.model.confusion import confusion
from metarep.model.folder import ModelFolder
from metarep.model.gallery import Gallery
from metarep.model.model import Model
from metarep.weights.named import load_representation

ENCODER = "omniglot-protonet"
WAYS, SHOTS = 6, 4


@pytest.fixture(scope="module")
def fitted(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fitted") / "model"
    assert main(["fit", str(photos / "fit"), "--out", str(path), "--encoder", ENCODER, "--json"]) == 0
    return path


@pytest.fixture
def folder(fitted: Path, tmp_path: Path) -> ModelFolder:
    """A copy of the fitted model, to be changed."""
    return ModelFolder.open(shutil.copytree(fitted, tmp_path / "model"))


def test_a_gallery_adds_and_forgets() -> None:
    x = torch.arange(6.0).view(6, 1)
    one = Gallery.empty().add(x[:4], ["b", "a", "b", "c"], list("pqrs"))
    assert one.names == ("b", "a", "c")
    assert one.classes.tolist() == [0, 1, 0, 2]
    less = one.without_class("a").without([0])
    assert (less.names, less.classes.tolist(), less.ids.tolist(), less.items) == (
        ("b", "c"),
        [0, 1],
        [2, 3],
        ("r", "s"),
    )
    more = less.add(x[4:], ["d", "b"], ["t", "u"])
    assert more.ids.tolist() == [2, 3, 4, 5], "a number is never given twice"
    assert more.renamed("d", "e").names == ("b", "c", "e")
    joined = more.renamed("d", "c")
    assert (joined.names, joined.counts.tolist()) == (("b", "c"), [2, 2])
    assert more.moved(3, "new").names == ("b", "d", "new"), "a class that loses its last image is gone"
    assert len(more.without([2, 3, 4, 5])) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.without_class("mtoh"), "did you mean 'moth'"),
        (lambda g: g.without([7]), "the model has no image 7"),
        (lambda g: g.moved(7, "x"), "the model has no image 7"),
        (lambda g: g.add(torch.zeros(1, 3), ["x"], ["y"]), "another encoder"),
        (
            lambda g: g.add(torch.zeros(2, 2), ["x"], ["y"]),
            "2 images, 1 label and 1 name do not match; give one label and one name for each image",
        ),
    ],
)
def test_a_gallery_says_what_is_wrong(change, message: str) -> None:
    with pytest.raises(MetarepError, match=message):
        change(Gallery.empty().add(torch.zeros(1, 2), ["moth"], ["a"]))


def test_what_is_predicted_is_what_evaluation_would_measure(letters: tuple[np.ndarray, list[str]]) -> None:
    """The same prepare, adapt and logits, for one task."""
    images, names = letters
    model = Model(load_representation(ENCODER))
    rows = model.prepare(images)
    fitted = model.changed(Gallery.empty().add(rows[::2], names[::2], names[::2]))
    order = {name: i for i, name in enumerate(fitted.gallery.names)}
    y = torch.tensor([[order[name] for name in names[::2]]])
    with torch.no_grad():
        want = model.learner.logits(model.learner.adapt(rows[None, ::2], y, len(order)), rows[None, 1::2])[0]
    torch.testing.assert_close(fitted.scores(rows[1::2]), want)
    answers = fitted.answer(rows[1::2])
    assert [each.label for each in answers] == [fitted.gallery.names[i] for i in want.argmax(-1).tolist()]
    assert np.mean([each.label == name for each, name in zip(answers, names[1::2], strict=True)]) > 0.8
    assert all(each.neighbours[0].similarity >= each.neighbours[-1].similarity for each in answers)
    assert confusion(fitted).sum() == len(rows[::2])


def test_images_come_in_any_shape(photos: Path) -> None:
    paths = sorted((photos / "query").rglob("*.png"))[:8]
    pictures = [Image.open(path) for path in paths]
    model = Model(load_representation(ENCODER))
    want = model.prepare(paths)
    for images in (
        [str(path) for path in paths],
        [path.read_bytes() for path in paths],
        pictures,
        [np.array(picture) for picture in pictures],
        np.stack([np.array(picture) for picture in pictures]),
    ):
        torch.testing.assert_close(model.prepare(images), want)
    with pytest.raises(MetarepError, match="image 0 is of type float"):
        model.prepare([0.5])


@pytest.mark.slow
def test_fit_and_predict_on_the_command_line(
    folder: ModelFolder, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["predict", str(folder.path), str(photos / "query"), "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert np.mean([each["label"] == Path(each["image"]).parent.name for each in answers]) > 0.8
    assert np.mean([Path(each["image"]).parent.name in each["label_set"] for each in answers]) > 0.85
    assert {len(each["neighbours"]) for each in answers} == {3}
    assert main(["predict", str(folder.path), str(photos / "query"), "--csv"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == len(answers) + 1
    assert (folder.path / "confusion.png").stat().st_size > 1000
    assert main(["predict", str(folder.path), str(photos / "query" / "c0" / "5.png")]) == 0
    assert "looked at: " in capsys.readouterr().out


@pytest.mark.slow
def test_a_class_is_added_and_forgotten(folder: ModelFolder, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new, another = sorted((photos / "other").iterdir())
    images, alone = (sorted(str(path) for path in each.iterdir()) for each in (new, another))
    assert main(["add", str(folder.path), str(new)]) == 0
    assert "now 7 classes" in capsys.readouterr().out
    assert main(["add", str(folder.path), alone[0], "--to", "lonely"]) == 0
    assert folder.model.gallery.counts.tolist() == [SHOTS] * WAYS + [len(images), 1]
    capsys.readouterr()
    assert main(["predict", str(folder.path), images[1]]) == 0
    assert f": {new.name}  " in capsys.readouterr().out
    assert main(["predict", str(folder.path), alone[1]]) == 0
    assert ": lonely  " in capsys.readouterr().out, "one image is not lost beside classes of several"
    ids = folder.model.gallery.ids[-1:].tolist()
    assert folder.image(ids[0]).is_file()
    assert main(["remove", str(folder.path), new.name, "lonely"]) == 0
    assert "now 6 classes" in capsys.readouterr().out
    assert not folder.image(ids[0]).exists()
    assert folder.model.gallery.next_id == WAYS * SHOTS + len(images) + 1


def test_what_is_like_no_class_is_told_from_what_is(letters: tuple[np.ndarray, list[str]]) -> None:
    """Letters of the classes are known, as often as was asked; other letters are not."""
    images, names = letters
    known = 12 * WAYS
    fitted = FewShotClassifier(ENCODER, false_alarms=0.1).fit(images[:known:2], names[:known:2])
    assert fitted.known(images[1:known:2]).mean() > 0.75
    assert fitted.known(images[known:]).mean() < 0.5


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["fit", "nowhere", "--out", "m"], "no folder 'nowhere'"),
        (["fit", "one", "--out", "m", "--encoder", ENCODER], "single class"),
        (["fit", "two", "--out", "m", "--encoder", "omniglot-protnet"], "did you mean 'omniglot-protonet'"),
        (["fit", "two", "--out", "m", "--encoder", "x.onnx"], "no file x.onnx"),
        (["fit", "two", "--out", "two", "--encoder", ENCODER], "is there already"),
        (["fit", "bad", "--out", "m", "--encoder", ENCODER], "x.png"),
        (["fit", "two", "--out", "m", "--encoder", ENCODER, "--false-alarms", "2"], "above 0 and below 1"),
        (["predict", "nowhere", "a.png"], "not a model folder; make a model with metarep fit PHOTOS --out nowhere"),
        (["export", "nowhere", "--onnx", "x"], "not a model folder"),
    ],
)
def test_wrong_input_is_one_clear_line(
    argv: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("one/a", "two/a", "two/b", "bad/a", "bad/b"):
        Path(place).mkdir(parents=True)
        Image.new("L", (28, 28)).save(f"{place}/1.png")
    Path("bad/a/x.png").write_bytes(b"no image")
    assert main(argv) == 2
    assert message in capsys.readouterr().err
    assert not Path("m").exists(), "nothing half made is left"


def test_bad_images_are_left_out_on_request(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in ("a", "b"):
        (tmp_path / "in" / place).mkdir(parents=True)
        image = {"a": "c0", "b": "c1"}[place]
        (tmp_path / "in" / place / "1.png").write_bytes((photos / "fit" / image / "0.png").read_bytes())
    (tmp_path / "in" / "a" / "2.png").write_bytes(b"no image")
    argv = ["fit", str(tmp_path / "in"), "--out", str(tmp_path / "m"), "--encoder", ENCODER, "--skip-bad"]
    with warnings.catch_warnings():
        warnings.simplefilter("default", LeftOutWarning)
        assert main(argv) == 0
    told = capsys.readouterr()
    assert "2.png" in told.err
    assert "2 classes, 2 images" in told.out


def test_a_folder_of_another_encoder_is_refused(folder: ModelFolder) -> None:
    load_representation("omniglot-triplet").save(folder.path / "encoder.safetensors")
    with pytest.raises(MetarepError, match="not the encoder"):
        ModelFolder.open(folder.path)


@pytest.mark.slow
def test_two_writers_lose_nothing(folder: ModelFolder, photos: Path) -> None:
    image = str(photos / "query" / "c0" / "5.png")
    context = multiprocessing.get_context("fork")
    before = len(folder.model.gallery)
    writers = [context.Process(target=_learn, args=(folder.path, image, f"w{number}", 6)) for number in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    gallery = ModelFolder.open(folder.path).model.gallery
    assert len(gallery) == before + 12
    assert len(set(gallery.ids.tolist())) == len(gallery)


@pytest.mark.slow
def test_a_writer_that_is_killed_leaves_a_model(folder: ModelFolder, photos: Path) -> None:
    image = str(photos / "query" / "c0" / "5.png")
    for pause in (0.15, 0.3, 0.45):
        writer = multiprocessing.get_context("fork").Process(target=_learn, args=(folder.path, image, "w", 500))
        writer.start()
        time.sleep(pause)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        gallery = ModelFolder.open(folder.path).model.gallery
        assert len(gallery) == len(gallery.items) >= WAYS * SHOTS
        assert all(folder.image(number).is_file() for number in gallery.ids.tolist())


def _learn(path: Path, image: str, label: str, times: int) -> None:
    torch.set_num_threads(1)
    folder = ModelFolder.open(path)
    for _ in range(times):
        folder.learn([image], [label], [image])
