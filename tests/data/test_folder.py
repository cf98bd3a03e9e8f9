"""The data set of a user's folder: its images, classes, splits and keys, and the folders that are refused."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from folders import fill, put
from PIL import Image

from metarep.data import datasets
from metarep.data.datasets import folder
from metarep.data.datasets.folder import DuplicateImagesWarning, load
from metarep.data.datasets.options import LeftOutWarning, Options
from metarep.data.reading.folder_tree import FolderWarning, scan, split_by_class
from metarep.errors import DataError, MetarepError

SMALL = Options(size=12)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAREP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("METAREP_DATA", raising=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "photos"


def test_images_labels_and_order(root):
    fill(root, "cab")
    put(root / "a" / "nested" / "deeper" / "3.PNG")
    for extra in ("a/.hidden.png", "a/Thumbs.db", "a/notes.txt", "__MACOSX/x.png", ".git/x.png", "a/.cache/x.png"):
        (root / extra).parent.mkdir(exist_ok=True)
        (root / extra).write_bytes(b"not an image")
    part = load(str(root), "all", SMALL)
    assert part.bank.images.shape == (10, 3, 12, 12)
    assert dict(zip(part.labels.names, part.labels.counts.tolist(), strict=True)) == {"a": 4, "b": 3, "c": 3}
    assert part.name == f"folder:{root}/all"
    one = Image.open(root / "b" / "1.png").resize((12, 12), Image.Resampling.BILINEAR, box=(0, 2, 16, 18))
    row = int((part.labels.classes == part.labels.names.index("b")).nonzero()[1])
    assert (part.bank.images[row].permute(1, 2, 0).numpy() == np.asarray(one)).all()


def test_channels_follow_the_images(root):
    fill(root, "abc", colour=False)
    grey = load(str(root), "all", SMALL)
    assert grey.bank.channels == 1
    Image.fromarray(np.full((20, 16, 3), (80, 80, 90), dtype=np.uint8)).save(root / "c" / "bluish.png")
    coloured = load(str(root), "all", SMALL)
    assert coloured.bank.channels == 3, "one channel that differs is colour"
    keys = [dict(zip(part.labels.names, part.labels.keys, strict=True)) for part in (grey, coloured)]
    assert keys[0]["a"] == keys[1]["a"]
    assert keys[0]["c"] != keys[1]["c"]


def test_classes_are_split_once_and_for_all(root):
    fill(root, "abcdefghij", images=1)
    parts = {split: load(str(root), split, SMALL) for split in ("train", "val", "test")}
    assert {split: len(part.labels.names) for split, part in parts.items()} == {"train": 6, "val": 2, "test": 2}
    everyone = [name for part in parts.values() for name in part.labels.names]
    assert sorted(everyone) == list("abcdefghij")
    together = torch.cat([parts[split].bank.images for split in ("train", "val", "test")])
    assert torch.equal(together, load(str(root), "all", SMALL).bank.images)
    assert parts["test"].labels.names == load(str(root), "test", SMALL).labels.names
    for split, names in (("all", everyone), ("trainval", everyone[:8])):
        whole = datasets.load_dataset(f"folder:{root}", split, size=12)
        assert list(whole.labels.names) == names
        assert torch.equal(whole.bank.images, together[: len(names)])
        assert whole.name == f"folder:{root}/{split}"


def test_split_by_class():
    assert sorted(split_by_class(["a", "b", "c"]).values()) == ["test", "train", "val"]
    assert split_by_class(["a", "b"]) == {"a": "test", "b": "test"}
    before, after = split_by_class([str(i) for i in range(100)]), split_by_class([str(i) for i in range(101)])
    assert sum(before[name] != after[name] for name in before) <= 3


def test_two_classes_are_for_testing(root):
    fill(root, "ab")
    for split in ("test", "all"):
        assert datasets.load_dataset(f"folder:{root}", split, size=12).labels.names == ("a", "b")
    for split in ("train", "trainval"):
        with pytest.raises(DataError, match=r"too few classes.*3 at least.*not train"):
            load(str(root), split, SMALL)


def test_own_splits(root):
    fill(root / "Train", "ab")
    for number, name in enumerate("cd"):
        put(root / "test" / name / "0.png", 77 + number)
    assert load(str(root), "train", SMALL).labels.names == ("a", "b")
    assert load(str(root), "test", SMALL).labels.names == ("c", "d")
    for split in ("val", "trainval"):
        with pytest.raises(DataError, match=r"no val/ folder \(it has test/, train/\)"):
            load(str(root), split, SMALL)
    assert load(str(root), "all", SMALL).labels.names == ("a", "b", "c", "d")
    put(root / "valid" / "e" / "0.png")
    assert load(str(root), "val", SMALL).labels.names == ("e",)
    put(root / "cat" / "0.png")
    with pytest.raises(DataError, match="holds the split 'Train' next to the class 'cat'"):
        load(str(root), "train", SMALL)


def test_a_class_in_two_splits_is_leakage(root):
    put(root / "train" / "cat" / "0.png", 1)
    put(root / "test" / "Cat" / "0.png", 2)
    with pytest.raises(DataError, match=r"is in two splits, 'test/Cat' and 'train/cat'.*must not be tested on"):
        load(str(root), "train", SMALL)


@pytest.mark.parametrize(
    ("first", "second", "names", "said"),
    [
        ("cat", "CAT", ("CAT", "cat"), "'CAT' and 'cat' differ in upper and lower case alone"),
        ("cat", "c\u0430t", ("cat", "c\u0430t"), r"'cat' and 'c\\u0430t' look the same"),
        ("caf\u00e9", "cafe\u0301", ("caf\u00e9",), "are one class, 'caf\u00e9', spelled in two ways"),
        ("cat", "cat ", ("cat",), "'cat' and 'cat ' are one class, 'cat'"),
    ],
)
def test_a_class_named_twice(root, first, second, names, said):
    put(root / first / "0.png")
    put(root / second / "0.png")
    if len(list(root.iterdir())) == 1:
        pytest.skip("this file system takes the two names for one")
    with pytest.warns(FolderWarning, match=said):
        labels = load(str(root), "all", SMALL).labels
    assert labels.names == names
    assert len(labels) == 2


def test_an_invisible_name_is_refused_with_a_visible_one(root):
    fill(root, ["ring\u200b", "b"])
    with pytest.raises(DataError, match=r"'ring\\u200b' has characters that cannot be seen; call it 'ring'"):
        scan(str(root))


def test_nothing_to_use(root, tmp_path):
    with pytest.raises(DataError, match=r"there is no folder '.*photos'"):
        load(str(root), "all", SMALL)
    with pytest.raises(DataError, match="write folder:PATH"):
        load("", "all", SMALL)
    root.mkdir()
    with pytest.raises(DataError, match="has no classes: it holds no class folders"):
        load(str(root), "all", SMALL)
    put(root / "1.png")
    with pytest.raises(DataError, match="has no classes: its 1 image is not in a class folder"):
        load(str(root), "all", SMALL)
    fill(root, "ab")
    (root / "empty").mkdir()
    (root / "empty" / "IMG_1.DNG").write_bytes(b"x")
    with pytest.raises(DataError, match=r"class 'empty' has no images; it holds \.dng; add some .*\.png"):
        load(str(root), "all", SMALL)
    with pytest.raises(MetarepError, match="unknown split 'tset'; did you mean 'test'"):
        load(str(root), "tset", SMALL)


def test_bad_images_stop_or_are_skipped_and_listed(root):
    fill(root, "abc")
    whole = put(root / "b" / "1.png").read_bytes()
    (root / "b" / "1.png").write_bytes(whole[: len(whole) // 2])
    (root / "c" / "2.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"b/1\.png is truncated.*\(1 more file is bad too\)"):
        load(str(root), "all", SMALL)
    skipping = Options(size=12, skip_bad=True)
    for _ in range(2):  # decoded, then from the cache
        with pytest.warns(LeftOutWarning) as told:
            part = load(str(root), "all", skipping)
        assert [str(each.message).partition(" is ")[0] for each in told if not hasattr(each.message, "loud")] == [
            "left out: b/1.png",
            "left out: c/2.png",
        ]
        assert "truncated" in str(told[0].message)
        assert "empty file" in str(told[1].message)
        assert "LEFT OUT: 2 of 9 images (22.2 %), which cannot be read" in str(told[-1].message)
    assert dict(zip(part.labels.names, part.labels.counts.tolist(), strict=True)) == {"a": 3, "b": 2, "c": 2}
    for file in (root / "b").iterdir():
        file.write_bytes(b"x")
    with pytest.warns(LeftOutWarning), pytest.raises(DataError, match=r"'b' of .* has no readable image"):
        load(str(root), "all", skipping)


def test_the_same_picture_in_two_classes_is_reported(root):
    fill(root, "abcde")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(str(root), "train", SMALL)
    for number in range(5):
        put(root / "a" / f"copy{number}.png", 500 + number)
        Image.open(root / "a" / f"copy{number}.png").save(root / "b" / f"other{number}.bmp")  # same pixels, other bytes
    put(root / "c" / "again.png", 2000)  # repeats c/0.png: its own class, so no leak
    with pytest.warns(DuplicateImagesWarning) as seen:
        load(str(root), "train", SMALL)
    text = str(seen[0].message)
    assert "5 pictures are in more than one class" in text
    assert text.count(" = ") == 3
    assert "and 2 more" in text
    with pytest.warns(DuplicateImagesWarning) as seen:
        datasets.load_dataset(f"folder:{root}", "trainval", size=12)
    assert len(seen) == 1, "both parts are one folder"


def test_a_key_is_what_a_class_shows(root, tmp_path):
    fill(root, "abc")
    fill(tmp_path / "copy", "abc")
    os.rename(tmp_path / "copy" / "a", tmp_path / "copy" / "renamed")
    for number, file in enumerate(sorted((tmp_path / "copy" / "renamed").iterdir())):
        file.rename(file.with_name(f"z{9 - number}.png"))
    here, there = load(str(root), "all", SMALL), load(str(tmp_path / "copy"), "all", SMALL)
    keys = [dict(zip(part.labels.names, part.labels.keys, strict=True)) for part in (here, there)]
    assert keys[0]["a"] == keys[1]["renamed"]
    assert len(set(here.labels.keys)) == 3
    assert load(str(root), "all", Options(size=20)).labels.keys == here.labels.keys, "a class is known at any size"
    assert all(key.startswith("folder:") and len(key) == 23 for key in here.labels.keys)


def test_decoded_once_until_a_file_changes(root, monkeypatch):
    fill(root, "abc")
    first = load(str(root), "all", SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(folder, "build", lambda *_, **__: pytest.fail("decoded again"))
        assert torch.equal(load(str(root), "all", SMALL).bank.images, first.bank.images)
        load(str(root), "test", Options(size=12, skip_bad=True))
    put(root / "a" / "0.png", 4321)
    assert not torch.equal(load(str(root), "all", SMALL).bank.images, first.bank.images)
    assert load(str(root), "all", Options()).bank.size == (84, 84)
