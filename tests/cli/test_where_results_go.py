"""Where results are written: not among the images that are read, and what metarep made there is no class."""

from pathlib import Path

import pytest
from folders import fill, put

from metarep.cli import main
from metarep.data.reading.folder_tree import image_files, scan
from metarep.data.reading.folder_walk import MADE, is_made
from metarep.experiments.run_folder import MODEL
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
]


def run(line: str) -> int:
    return main(line.split())


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "photos", "ab")
    return Path("photos")


@pytest.mark.parametrize("line", INSIDE)
def test_nothing_is_written_among_the_images(line: str, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if " moths " in line:
        assert run("fit photos --out moths --encoder omniglot-protonet") == 0
    before, _ = sorted(photos.rglob("*")), capsys.readouterr()
    assert run(line) == 2
    said = capsys.readouterr().err
    assert "is inside photos, whose images are read, and would be read with them; choose a place outside it" in said
    assert sorted(photos.rglob("*")) == before


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
