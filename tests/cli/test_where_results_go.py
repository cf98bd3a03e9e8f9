"""Where results are written: not among the images that are read, and what metarep made there is no class."""

from pathlib import Path

import pytest
import torch
from folders import fill, put

from metarep.cli import main
from metarep.cli.among import class_folders, refuse_among_classes
from metarep.data.reading.folder_tree import image_files, scan
from metarep.data.reading.folder_walk import MADE, is_made
from metarep.errors import MetarepError
from metarep.experiments.run_folder import MODEL
from metarep.model.gallery import Gallery
from metarep.model.multi_label.folder import LABELS
from metarep.weights.hub.contents import GALLERY

INSIDE = [
    "fit photos --out photos/moths",
    "fit photos --out photos/a/moths",
    "train protonet --data folder:photos --out photos/run",
    "sweep protonet --data folder:photos --over lr=1e-4,1e-3 --out photos/sweep",
    "compare --data folder:photos --methods protonet --out photos/compare",
    "data prepare folder:photos --out photos/photos.bank",
    "data show folder:photos --out photos/a/tasks.png",
    "suggest moths photos --out photos/next.png",
    "predict moths photos --labelled --out photos/a/labelled.png",
    "index build photos/photos.index photos",
    "quickstart --data folder:photos --out photos/quick",
]
OF_THE_MODEL = [
    ("export moths --web photos/page", "photos"),
    ("export moths --web photos/a/page", "photos/a"),
    ("suggest moths others --out photos/a/next.png", "photos/a"),
    ("predict moths others --labelled --out photos/a/labelled.png", "photos/a"),
    ("index search some.index others/0.png --out photos/b/found.png", "photos/b"),
    ("index duplicates some.index --out photos/b/twins.png", "photos/b"),
]
TAKEN = [
    "data show glyphs --out {}",
    "suggest moths others --out {}",
    "predict moths others --labelled --out {}",
    "index search some.index others/0.png --out {}",
    "index duplicates some.index --out {}",
    "evaluate omniglot-protonet --data glyphs --save-tasks {}",
    "evaluate omniglot-protonet --data glyphs --shard 1/2 --out {}",
    "export moths --onnx {}",
]


def run(line: str) -> int:
    return main(line.split())


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "photos", "ab")
    return Path("photos")


@pytest.mark.slow
@pytest.mark.parametrize("line", INSIDE)
def test_nothing_is_written_among_the_images(line: str, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if " moths " in line:
        assert run("fit photos --out moths --encoder omniglot-protonet") == 0
    before, _ = sorted(photos.rglob("*")), capsys.readouterr()
    assert run(line) == 2
    said = capsys.readouterr().err
    assert "is inside photos, whose images are read, and would be read with them; choose a place outside it" in said
    assert sorted(photos.rglob("*")) == before


@pytest.fixture
def moths(photos: Path) -> None:
    """A model and an index of the images, and a folder with another image."""
    put(Path("others/0.png"))
    assert run("fit photos --out moths --encoder omniglot-protonet") == 0
    assert run("index build some.index photos --encoder omniglot-protonet") == 0


@pytest.mark.slow
@pytest.mark.usefixtures("moths")
def test_nothing_is_written_among_the_images_of_a_model_or_an_index(capsys: pytest.CaptureFixture[str]) -> None:
    before, _ = sorted(Path("photos").rglob("*")), capsys.readouterr()
    for line, place in OF_THE_MODEL:
        assert run(line) == 2, line
        assert f" is inside {place}, whose images are read, " in capsys.readouterr().err
    assert sorted(Path("photos").rglob("*")) == before
    for line in ("suggest moths others --out next.png", "index search some.index others/0.png --out found.png"):
        assert run(line) == 0, "beside the folder of images a picture is no image of a class"


def test_a_class_folder_alone_does_not_make_its_parent_a_folder_of_classes(tmp_path: Path) -> None:
    items = [str(tmp_path / name / "0.png") for name in ("a", "b", "c/inner")] + ["uploaded.png"]
    gallery = Gallery.empty()
    for label, item in zip(("a", "other", "c", "d"), items, strict=True):
        gallery = gallery.add(torch.zeros(1, 2), [label], [item])
    for name in ("a", "c"):
        (tmp_path / name).mkdir()
    assert class_folders(gallery) == {tmp_path / "a", tmp_path / "c"}
    refuse_among_classes(tmp_path / "page.png", gallery)
    refuse_among_classes(tmp_path / "page", gallery.without_class("c"), "folder")
    for path, kind in ((tmp_path / "c" / "page.png", "file"), (tmp_path / "page", "folder")):
        with pytest.raises(MetarepError, match="is inside"):
            refuse_among_classes(path, gallery, kind)


def test_a_run_of_a_folder_keeps_a_comparison_out_of_it(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = "--size 28 --steps 1 --ways 2 --shots 1 --queries 1 --train-on trainval --width 4"
    fill(photos, "abcd")
    assert run(f"train protonet --data folder:photos {how} --out run") == 0
    assert run("compare run --data glyphs --out photos/compare") == 2
    assert "photos/compare is inside photos, whose images are read" in capsys.readouterr().err


@pytest.mark.usefixtures("moths")
def test_no_file_is_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.png").write_text("mine")
    for line in TAKEN:
        assert run(line.format("mine.png")) == 2, line
        assert "mine.png is there already; choose another file or remove it" in capsys.readouterr().err
    assert Path("mine.png").read_text() == "mine"


def test_a_hidden_place_inside_is_not_read(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("index build photos/.index photos --encoder omniglot-protonet") == 0
    assert "6 images in photos/.index" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(MADE))
@pytest.mark.parametrize("place", ["photos/moths", "photos/a/moths"])
def test_what_metarep_made_is_no_class(name: str, place: str, photos: Path) -> None:
    put(Path(place, "images", "0.png"))
    Path(place, name).touch()
    tree = scan("photos")
    assert [(entry.name, len(entry.files)) for entry in tree.classes] == [("a", 3), ("b", 3)]
    assert tree.notes == (
        f"passed over: {Path(place).relative_to('photos').as_posix()!r}, which metarep made; keep it outside the "
        "folder of images",
    )
    with pytest.warns(UserWarning, match=f"passed over: '{place}', which metarep made"):
        assert len(list(image_files(photos))) == 6


@pytest.mark.slow
def test_the_marks_are_the_files_of_the_folders(photos: Path) -> None:
    assert {GALLERY, LABELS, MODEL} < MADE
    assert run("fit photos --out moths --encoder omniglot-protonet") == 0
    assert run("index build photos.index photos --encoder omniglot-protonet") == 0
    assert [is_made(Path(path)) for path in ("moths", "photos.index", "photos", "photos/a")] == [
        True,
        True,
        False,
        False,
    ]
