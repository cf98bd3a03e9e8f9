"""miniImageNet in the layouts that people have it in, a few images small."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metarep.data.datasets import load_dataset
from metarep.data.datasets.miniimagenet import PARTS, shipped_list
from metarep.data.datasets.options import LeftOutWarning, ManyLeftOutWarning
from metarep.errors import DataError

TRAIN, VAL, TEST = "n01532829", "n01855672", "n01930112"  # a class of each part


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METAREP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("METAREP_DATA", str(tmp_path))
    (tmp_path / "miniimagenet").mkdir()
    return tmp_path / "miniimagenet"


def colour(number: int) -> tuple[int, int, int]:
    return 40 * number % 256, 255 - 20 * number, 100


def write_jpegs(root: Path, names: dict[str, str], folder: str = "images") -> None:
    for number, name in enumerate(names):
        path = root / folder.format(label=names[name]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (120, 90), colour(number)).save(path, quality=95)


def write_csv(root: Path, split: str, names: dict[str, str]) -> None:
    (root / f"{split}.csv").write_text(
        "filename,label\n" + "".join(f"{name},{label}\n" for name, label in names.items())
    )


NAMES = {f"{label}{i:08d}.jpg": label for label in (TEST, "n01981276") for i in (1, 2, 3)}


def test_the_shipped_lists_are_the_published_split() -> None:
    rows = {part: shipped_list(part) for part in PARTS}
    assert [len(rows[part]) for part in PARTS] == [38_400, 9_600, 12_000]
    classes = [{label for _, label in rows[part]} for part in PARTS]
    assert [len(each) for each in classes] == [64, 16, 20]
    assert len(set().union(*classes)) == 100
    assert len({name for part in PARTS for name, _ in rows[part]}) == 60_000
    assert rows["train"][0] == ("n0153282900000005.jpg", TRAIN)


@pytest.mark.parametrize("folder", ["images", ".", "images/{label}", "{label}"])
def test_jpegs_with_their_list(root: Path, folder: str) -> None:
    write_jpegs(root, NAMES, folder)
    write_csv(root, "test", NAMES)
    part = load_dataset("miniimagenet", "test")
    assert part.name == "miniimagenet/test"
    assert part.bank.images.shape == (6, 3, 84, 84)
    assert part.labels.names == (TEST, "n01981276")
    assert part.labels.keys == (f"imagenet/{TEST}", "imagenet/n01981276")
    assert part.labels.classes.tolist() == [0, 0, 0, 1, 1, 1]
    expected = torch.tensor([colour(number) for number in range(6)]).float()
    assert (part.bank.images.float().mean((2, 3)) - expected).abs().max() < 4


def test_a_path_of_ones_own_and_a_size(root: Path, tmp_path: Path) -> None:
    write_jpegs(root, NAMES)
    write_csv(root, "test", NAMES)
    root.rename(tmp_path / "elsewhere")
    assert load_dataset(f"miniimagenet:{tmp_path / 'elsewhere'}", size=16).bank.size == (16, 16)


@pytest.mark.slow
def test_without_lists_the_published_ones_hold_and_a_missing_image_is_named(root: Path) -> None:
    name, label = shipped_list("test")[0]
    write_jpegs(root, {name: label})
    with pytest.raises(DataError, match=shipped_list("test")[1][0]):
        load_dataset("miniimagenet", "test", size=8)
    with pytest.raises(DataError, match="no image of miniImageNet's val part"):
        load_dataset("miniimagenet", "val")


def test_a_bad_image_is_named_or_left_out(root: Path) -> None:
    write_jpegs(root, NAMES)
    write_csv(root, "test", NAMES)
    bad = next(iter(NAMES))
    (root / "images" / bad).write_bytes((root / "images" / bad).read_bytes()[:200])
    with pytest.raises(DataError, match=bad):
        load_dataset("miniimagenet", "test")
    for _ in range(2):  # decoded, then from the cache
        with (
            pytest.warns(ManyLeftOutWarning, match=r"LEFT OUT: 1 of 6 images \(16.7 %\)"),
            pytest.warns(LeftOutWarning, match=f"left out: .*{bad} is truncated"),
        ):
            part = load_dataset("miniimagenet", "test", skip_bad=True)
        assert part.labels.counts.tolist() == [2, 3]


def test_a_file_that_changes_is_read_again(root: Path) -> None:
    write_jpegs(root, NAMES)
    write_csv(root, "test", NAMES)
    before = load_dataset("miniimagenet", "test").bank.images[0].clone()
    Image.new("RGB", (200, 200), (255, 0, 0)).save(root / "images" / next(iter(NAMES)))
    assert not torch.equal(load_dataset("miniimagenet", "test").bank.images[0], before)


@pytest.mark.parametrize("row", ["../../secret.jpg,n01930112", "a.jpg,../../.."])
def test_a_list_cannot_lead_out_of_the_folder(root: Path, row: str) -> None:
    (root / "test.csv").write_text(f"filename,label\n{row}\n")
    with pytest.raises(DataError, match="would leave its folder"):
        load_dataset("miniimagenet", "test")


@pytest.mark.parametrize("content", ["file,class\na,b\n", "filename,label\nonly\n", ""])
def test_a_list_that_is_none_is_refused(root: Path, content: str) -> None:
    (root / "test.csv").write_text(content)
    with pytest.raises(DataError, match=r"test\.csv|no image of"):
        load_dataset("miniimagenet", "test")


IMAGES = np.random.default_rng(0).integers(0, 256, (6, 84, 84, 3), dtype=np.uint8)


def write_pickle(root: Path, split: str, content: object) -> None:
    (root / f"mini-imagenet-cache-{split}.pkl").write_bytes(pickle.dumps(content, protocol=2))


def test_pickles(root: Path) -> None:
    write_pickle(root, "train", {"image_data": IMAGES, "class_dict": {TRAIN: [0, 2, 4], "n01558993": [1, 3, 5]}})
    write_pickle(root, "val", {b"image_data": IMAGES[:2], b"class_dict": {VAL: [0, 1]}})
    part = load_dataset("miniimagenet", "train")
    np.testing.assert_array_equal(part.bank.images.numpy(), IMAGES.transpose(0, 3, 1, 2))
    assert part.labels.names == (TRAIN, "n01558993")
    assert part.labels.classes.tolist() == [0, 1, 0, 1, 0, 1]
    both = load_dataset("miniimagenet", "trainval")
    assert (both.name, len(both.bank), len(both.labels.names)) == ("miniimagenet/trainval", 8, 3)
    assert load_dataset("miniimagenet", "val", size=32).bank.images.shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"image_data": IMAGES}, "class_dict"),
        ({"image_data": IMAGES, "class_dict": {TEST: [0, 9]}}, "index out of range"),
        ({"image_data": IMAGES, "class_dict": {TEST: [0, 1]}}, "image 2 is not in any class"),
        ({"image_data": IMAGES / 255, "class_dict": {TEST: list(range(6))}}, "uint8"),
        ({"image_data": [1, 2], "class_dict": {TEST: [0, 1]}}, "not an array"),
        ([1], "not a dict"),
        (io.BytesIO, "hostile"),
    ],
)
def test_a_bad_pickle_is_refused(root: Path, content: object, words: str) -> None:
    write_pickle(root, "test", content)
    with pytest.raises(DataError, match=words) as caught:
        load_dataset("miniimagenet", "test")
    assert "mini-imagenet-cache-test.pkl" in str(caught.value)


@pytest.mark.parametrize("stem", ["", "mini-imagenet-"])
def test_arrays(root: Path, stem: str) -> None:
    np.savez(root / f"{stem}test.npz", images=IMAGES, labels=np.array([10, 10, 2, 2, 2, 10]))
    part = load_dataset("miniimagenet", "test")
    np.testing.assert_array_equal(part.bank.images.numpy(), IMAGES.transpose(0, 3, 1, 2))
    assert [part.labels.names[row] for row in part.labels.classes] == [f"test/{n}" for n in (10, 10, 2, 2, 2, 10)]
    assert part.labels.keys[0].startswith("miniimagenet/test/")


def test_bad_arrays_are_refused(root: Path) -> None:
    np.savez(root / "test.npz", images=IMAGES, labels=np.array([{}] * 6))
    with pytest.raises(DataError, match=r"test\.npz"):
        load_dataset("miniimagenet", "test")
    np.savez(root / "test.npz", images=IMAGES, labels=np.arange(5))
    with pytest.raises(DataError, match="there are 6 images"):
        load_dataset("miniimagenet", "test")
    whole = (root / "test.npz").read_bytes()
    for keep in (0, 100, len(whole) // 2):
        (root / "test.npz").write_bytes(whole[:keep])
        with pytest.raises(DataError, match=r"test\.npz"):
            load_dataset("miniimagenet", "test")


def test_a_class_of_another_part_is_refused(root: Path) -> None:
    write_pickle(root, "test", {"image_data": IMAGES, "class_dict": {TRAIN: list(range(6))}})
    with pytest.raises(DataError, match=f"'{TRAIN}' is given for test, but is in train"):
        load_dataset("miniimagenet", "test")


@pytest.mark.slow
def test_nothing_there_says_what_would_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("train.csv", "image_data", ".npz", "images/")
    for spec in ("miniimagenet", f"miniimagenet:{root / 'nowhere'}"):
        with pytest.raises(DataError) as caught:
            load_dataset(spec)
        assert all(word in str(caught.value) for word in words)
    monkeypatch.delenv("METAREP_DATA")
    with pytest.raises(DataError, match="miniimagenet:PATH"):
        load_dataset("miniimagenet")
