"""Models of several labels change: images are added and labels removed, and what stops this leaves the old model."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from pairs import learned, pair, write_list, write_rows
from serving import ENCODER

from metarep.cli import main
from metarep.data.class_names import BadNameError
from metarep.data.copies.picture_hash import LENGTH
from metarep.errors import MetarepError
from metarep.model.multi_label import file as label_file
from metarep.model.multi_label.changes import add_images, called
from metarep.model.multi_label.folder import MultiLabelFolder
from metarep.model.multi_label.model import MultiLabelModel
from metarep.model.repeats import RepeatWarning
from metarep.weights.named import load_representation


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MultiLabelFolder:
    """A model of 16 pictures in ``model``, and the list ``more.csv`` of 16 others."""
    monkeypatch.chdir(tmp_path)
    write_list(tmp_path, "more", range(4, 8))
    return learned(tmp_path, range(4))


@pytest.mark.slow
def test_a_model_that_grows_says_what_one_of_all_images_says(
    folder: MultiLabelFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "all").mkdir()
    whole = learned(tmp_path / "all").model
    assert main(["add", "model", "more.csv"]) == 0
    out = capsys.readouterr().out
    assert "added 16 images; now 2 labels, 32 images" in out
    assert "expected, by leaving images out" in out
    grown = MultiLabelFolder.open(folder.path).model
    assert grown.marks.equal(whole.marks[:, [whole.names.index(name) for name in grown.names]])
    query = whole.prepare([pair(("ring",), 30), pair((), 31)])
    for one, other in zip(grown.answer(query), whole.answer(query), strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)
        assert set(one.labels) == set(other.labels)
    assert grown.trust is not None
    assert whole.trust is not None
    assert grown.trust.precision == pytest.approx(whole.trust.precision, abs=0.01)
    for name in grown.names:
        assert f"  {name}: 16 images, average precision {grown.trust.per_label[name]['average_precision']:.1f} %" in out


def test_what_is_measured_is_kept(folder: MultiLabelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    want = folder.model.trust
    again = MultiLabelFolder.open(folder.path).model
    monkeypatch.setattr(type(again), "held_out", property(lambda _: pytest.fail("it was measured a second time")))
    assert again.trust == want
    assert again.calibration == folder.model.calibration
    assert want is not None
    assert want.images == 16


@pytest.mark.slow
def test_new_labels_known_pictures_and_none(folder: MultiLabelFolder, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("train-ring-0.png", "old"), ("more-none-4.png", ""), ("more-ring-4.png", "ring|old")]
    write_rows(Path("new.csv"), rows)
    assert main(["add", "model", "new.csv"]) == 0
    out = capsys.readouterr().out
    assert "added 2 images, 1 there already; now 3 labels, 18 images" in out
    assert "new: old; earlier images that were not given again count as without" in out
    assert "train-ring-0.png is the same picture as " in out
    model = folder.model
    assert model.marks.sum(0).tolist() == [8, 9, 2]
    assert model.marks[model.items.index("more-none-4.png")].tolist() == [False] * 3
    assert model.marks[0, 2]
    assert main(["add", "model", "more-cross-4.png", "--to", "cross | old", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["added"], facts["new"], facts["labels"]["old"]["images"]) == (1, [], 3)
    write_rows(Path("empty.csv"), [("more-none-5.png", "")])
    assert main(["add", "model", "empty.csv"]) == 0
    assert "added 1 image; now 3 labels, 20 images" in capsys.readouterr().out
    assert main(["add", "model", "more-none-4.png", "--to", "ring"]) == 0
    assert "  more-none-4.png was there, and has the labels of both now" in capsys.readouterr().out
    with pytest.warns(RepeatWarning, match=r"the labels stay: more-none-4.png is given without a label, and has ring"):
        folder.learn(["more-none-4.png"], [[]], ["more-none-4.png"])
    assert folder.model.marks[folder.model.items.index("more-none-4.png")].any()


def test_labels_are_removed_and_their_images_stay(folder: MultiLabelFolder, capsys: pytest.CaptureFixture[str]) -> None:
    before = folder.model
    query = before.prepare([pair(("ring",), 30), pair((), 31)])
    assert main(["remove", "model", "rings"]) == 2
    assert "unknown label 'rings'; did you mean 'ring'?" in capsys.readouterr().err
    assert main(["remove", "model", "cross", "ring"]) == 2
    assert "no label would be left, and a model needs one; add images of another label first" in capsys.readouterr().err
    assert main(["remove", "model", "cross"]) == 0
    out = capsys.readouterr().out
    assert "now 1 label, 16 images" in out
    assert "mean average precision" in out
    assert "| cross |" not in (folder.path / "README.md").read_text()
    assert folder.model.names == ("ring",)
    assert folder.model.scores(query)[:, 0].equal(before.scores(query)[:, before.names.index("ring")])


WRONG = [
    (["more-ring-4.png"], "more-ring-4.png has no labels, and an image of this model may have several; give a list"),
    (["more.csv", "--to", "ring"], "more.csv is a list with the labels of each image, so --to has nothing to say"),
    (["more-ring-4.png", "--to", "ring;cross"], "--to: 'ring;cross' has a semicolon"),
    (["nothing.png", "--to", "ring"], "there is no image 'nothing.png'"),
]


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_what_cannot_be_added_changes_nothing(
    folder: MultiLabelFolder, given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content = (folder.path / folder.FILE).read_bytes()
    assert main(["add", "model", *given]) == 2
    assert message in capsys.readouterr().err
    assert (folder.path / folder.FILE).read_bytes() == content


@pytest.mark.usefixtures("folder")
def test_a_picture_is_learned_once_with_all_its_labels() -> None:
    rows = [("more-ring-4.png", "ring"), ("same.png", "ring"), ("more-cross-4.png", "cross"), ("other.png", "old")]
    rows += [("more-none-4.png", ""), ("against.png", "cross"), ("more-ring-5.png", "ring"), ("empty.png", "")]
    for copy, given in zip(rows[1::2], rows[::2], strict=True):
        Path(copy[0]).write_bytes(Path(given[0]).read_bytes())
    encoder = load_representation(ENCODER)
    with pytest.warns(RepeatWarning) as told:
        model = MultiLabelModel.fit(
            encoder, [path for path, _ in rows], [[label] if label else [] for _, label in rows]
        )
    assert (model.items, model.names) == (tuple(path for path, _ in rows[::2]), ("cross", "old", "ring"))
    assert model.marks.int().tolist() == [[0, 0, 1], [1, 1, 0], [1, 0, 0], [0, 0, 1]]
    same, other, against = [str(each.message) for each in told]
    assert same == "left out: same.png is the same picture as more-ring-4.png"
    assert other == "one image with the labels of both: other.png is the same picture as more-cross-4.png"
    assert against.startswith("contradicts, and the label is taken: 2 images are the same pictures")
    assert "against.png has cross and more-none-4.png none" in against
    assert "more-ring-5.png has ring and empty.png none" in against


def test_names_of_labels_are_compared_as_those_of_classes() -> None:
    model = MultiLabelModel.fit(None, torch.eye(2), [["café"], []], head={"name": "prototypes"})
    decomposed = "cafe\u0301"
    assert called(model.names, decomposed) == "café"
    more = add_images(model, torch.ones(1, 2), model.hashes[:1], [[decomposed]], ["c.jpg"])
    assert (more.labels, more.model.marks[:, 0].tolist()) == ((), [True, False, True])
    with pytest.raises(BadNameError):
        add_images(model, torch.ones(1, 2), model.hashes[:1], [["\u200b"]], ["c.jpg"])


def test_a_label_of_every_picture_is_refused() -> None:
    rows, marks = torch.eye(2), torch.tensor([[True], [False]])
    hashes = torch.arange(1, 3, dtype=torch.int8)[:, None].expand(2, LENGTH)
    model = MultiLabelModel(None, ["a"], rows, marks, ["1.jpg", "2.jpg"], head={"name": "prototypes"}, hashes=hashes)
    with pytest.raises(MetarepError, match=r"every image has the label 'a', .*; add images without it"):
        add_images(model, rows[1:], hashes[1:], [["a"]], ["again.jpg"])
    same = add_images(model, rows[1:], hashes[1:], [[]], ["again.jpg"])
    assert (same.new, same.known) == (0, (("again.jpg", "2.jpg"),))


@pytest.mark.parametrize("trouble", [OSError("the disk is full"), KeyboardInterrupt()])
def test_what_stops_a_change_leaves_the_old_model(
    folder: MultiLabelFolder, trouble: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = folder.model

    def fail(*_: object) -> None:
        raise trouble

    with monkeypatch.context() as patch:
        patch.setattr(label_file, "write_tensors", fail)
        with pytest.raises(type(trouble)):
            folder.learn(["more-ring-4.png"], [["ring"]], ["more-ring-4.png"])
    again = MultiLabelFolder.open(folder.path)
    assert (again.model.items, again.model.calibration) == (before.items, before.calibration)
    assert again.learn(["more-ring-4.png"], [["ring"]], ["more-ring-4.png"]).new == 1, "no lock is left"


@pytest.mark.slow
def test_a_writer_that_is_killed_leaves_a_model(folder: MultiLabelFolder) -> None:
    for pause in (0.2, 0.35, 0.5):
        writer = multiprocessing.get_context("fork").Process(target=_change, args=(folder.path.resolve(),))
        writer.start()
        time.sleep(pause)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        model = MultiLabelFolder.open(folder.path).model
        assert len(model.items) == len(model.rows) >= 16
        assert model.trust is not None
        assert set(model.names) in ({"ring", "cross"}, {"ring", "cross", "new"})


def _change(path: Path) -> None:
    torch.set_num_threads(1)
    folder = MultiLabelFolder.open(path)
    row = folder.model.rows[:1]
    for number in range(500):
        with folder.writing() as put:
            added = add_images(folder.model, row + number, folder.model.hashes[:1] * 0, [["new"]], [str(number)])
            put(added.model)
        folder.forget(["new"])


@pytest.mark.slow
def test_two_writers_lose_nothing(folder: MultiLabelFolder) -> None:
    path, before = folder.path.resolve(), len(folder.model.rows)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_add, args=(path, f"w{number}", 5)) for number in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    model = MultiLabelFolder.open(folder.path).model
    assert len(model.rows) == before + 10
    assert model.marks.sum(0)[2:].tolist() == [5, 5]


def _add(path: Path, label: str, times: int) -> None:
    torch.set_num_threads(1)
    folder = MultiLabelFolder.open(path)
    row, none = folder.model.rows[:1], folder.model.hashes[:1] * 0
    for number in range(times):
        with folder.writing() as put:
            put(add_images(folder.model, row + number, none, [[label]], [f"{label} {number}"]).model)
