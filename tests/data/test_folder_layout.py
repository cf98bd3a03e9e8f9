"""Layouts of user folders: which subfolders are classes, and where links lead."""

import os
import re
from pathlib import Path

import pytest
from folders import fill, put

from metarep.data.datasets.folder import load
from metarep.data.datasets.options import LeftOutWarning, Options
from metarep.data.reading.folder_tree import image_files, scan
from metarep.errors import DataError

SMALL = Options(size=12)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAREP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("METAREP_DATA", raising=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "photos"


LAYOUTS = {  # folders of two images each, and what becomes of them: classes, or words of the refusal
    "as it should be": ("a b", "a b", ""),
    "below one folder": ("photos/a photos/b", "a b", "taken from .*photos/photos"),
    "far below": ("x/y/a x/y/b", "a b", "taken from .*x/y"),
    "below one folder, in splits": ("x/train/a x/test/b", "a b", "taken from .*/x"),
    "one class in parts": ("a/2023 b", "a b", ""),
    "called as splits are": ("train valid car", "car train valid", ""),
    "nothing but splits": ("train test", None, "test, train hold images and no class folders.*as in .*test-class"),
    "a split beside a class": (
        "train/a train/b cat",
        None,
        "If 'train' holds the classes, give .*train; if it is a cl",
    ),
    "a test split without classes": ("train/a train/b test", "a b", ""),
    "one level too high": ("x/a x/b y/c y/d", "x y", r"such as 'x' \(a, b\).*give .*x instead"),
    "two levels too high": (
        "p/x/a p/x/b p/y/c q/x/d q/x/e",
        "p q",
        r"2 classes.*such as 'p' \(a, b\).*give .*p/x instead",
    ),
    "above several sets in splits": (
        "x/train/a x/val/a y/train/b y/val/b",
        "x y",
        r"'x' \(train, val\).*give .*x instead",
    ),
    "one level too high below a split": ("train/x/a train/x/b test/y/c", "x y", r"1 class.*give .*train/x instead"),
    "beside a folder of other images": ("x/a x/b new", "new x", r"1 class with images in inner.*give .*x instead"),
    "the same classes in two splits": ("train/a test/a", None, "Give one part alone, as in .*photos/train"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(root, name):
    folders, classes, said = LAYOUTS[name]
    fill(root, folders.split(), 2)
    if classes is None:
        with pytest.raises(DataError, match=said):
            scan(str(root))
        return
    tree = scan(str(root))
    assert sorted(entry.name for entry in tree.classes) == classes.split()
    assert all((tree.root / file).is_file() for entry in tree.classes for file in entry.files)
    assert [bool(re.search(said, note)) for note in tree.notes] == [True] * bool(said)


def test_one_level_too_low(root, monkeypatch):
    fill(root, "ab")
    with pytest.raises(
        DataError, match=r"its 3 images are not in a class folder. It seems to be a class itself: give .*photos,"
    ):
        scan(str(root / "a"))
    monkeypatch.chdir(root / "a")
    with pytest.raises(DataError, match=r"give \.\., above it"):
        scan(".")
    with pytest.raises(DataError, match=r"'0\.png' is a file, not a folder"):
        scan("0.png")


def test_to_teach_the_training_part_is_enough(root):
    fill(root, ["train/a", "train/b", "test/a", "test/b", "val/b"], 2)
    tree = scan(str(root), teach=True)
    assert [(entry.name, len(entry.files)) for entry in tree.classes] == [("a", 2), ("b", 2)]
    assert tree.held_out == (root / "test", root / "val")
    assert "is left for testing" in tree.notes[0]


def test_a_class_inside_another(root):
    put(root / "cat" / "cat" / "0.png")
    put(root / "dog" / "left" / "0.png")
    put(root / "fox" / "left" / "0.png")
    assert sorted(load(str(root), "all", SMALL).labels.names) == ["cat", "dog", "fox"]
    put(root / "fox" / "cat" / "0.png")
    with pytest.raises(DataError, match="'cat' is there twice, 'cat' and inside another class, 'fox/cat'"):
        load(str(root), "all", SMALL)


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links here")
def test_links_are_followed_once_and_broken_ones_named(root, tmp_path):
    fill(root, "bc")
    fill(tmp_path / "elsewhere", "x")
    (root / "linked").symlink_to(tmp_path / "elsewhere" / "x")
    (root / "b" / "loop").symlink_to(root / "b")
    assert [len(entry.files) for entry in scan(str(root)).classes] == [3, 3, 3]
    (root / "c" / "sub").symlink_to(root / "nowhere")
    assert f"c/sub' is a link to {root / 'nowhere'}, which is not there" in scan(str(root)).notes[0]
    with pytest.warns(LeftOutWarning, match="c/sub' is a link to"):
        assert len(list(image_files(root / "c"))) == 3
    (root / "c" / "sub").unlink()
    (root / "c" / "lost.png").symlink_to(root / "nowhere.png")
    with pytest.raises(DataError, match=r"c/lost\.png cannot be read"):
        load(str(root), "all", SMALL)


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links here")
@pytest.mark.parametrize(
    ("link", "target", "message"),
    [
        ("gone", "nowhere", "class '.*gone' is a link to nowhere, which is not there; mend the link or remove it"),
        ("again", "a", "'.*a' and '.*again' are one folder, reached by a link"),
        ("a/up", "..", "class 'a' holds '.*a/up', a link to '.*photos'"),
        ("a/other", "../b", "class 'a' holds '.*a/other', a link to '.*b'"),
    ],
)
def test_links_that_make_classes_wrong(root, link, target, message):
    fill(root, "ab")
    (root / link).symlink_to(target)
    with pytest.raises(DataError, match=message):
        scan(str(root))
    if link == "gone":
        with pytest.raises(DataError, match="gone' is a link to nowhere, which is not there; give the folder"):
            scan(str(root / "gone"))


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_names_that_are_not_utf8(root):
    fill(root, "ab")
    try:
        (Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9"))).mkdir()
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    put(Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9/\xff.png")))
    part = load(str(root), "all", SMALL)
    assert "caf\\udce9" in part.labels.names
    assert len(part.labels.digest) == 12
