"""Caltech-101: the real archive where METAREP_DATA has it, and small broken ones."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metarep.data.datasets import caltech101, load_dataset
from metarep.errors import DataError

KNOWN = {"train": {"ant": 2}, "val": {"beaver": 1}, "test": {"crab": 2}}


def picture(brightness: int, size: tuple[int, int] = (90, 40), mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, brightness if mode == "L" else (brightness,) * 3).save(file, "JPEG")
    return file.getvalue()


def pictures() -> dict[str, bytes]:
    known = [
        f"{name}/image_{i + 1:04d}" for part in KNOWN.values() for name, count in part.items() for i in range(count)
    ]
    shapes = [((90, 40), "RGB"), ((40, 90), "L"), ((1, 7), "RGB"), ((84, 84), "L"), ((640, 20), "RGB")]
    return {name: picture(40 * i, *shape) for i, (name, shape) in enumerate(zip(known, shapes, strict=True))}


def write(folder: Path, contents: dict[str, bytes], inner: str = caltech101.INNER) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in contents.items():
            entry = tarfile.TarInfo(f"101_ObjectCategories/{name}.jpg")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    with zipfile.ZipFile(folder / caltech101.ARCHIVE, "w") as archive:
        archive.writestr(f"caltech-101/{inner}", file.getvalue())
        archive.writestr("caltech-101/show_annotation.m", b"")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own, and a Caltech-101 of five pictures."""
    monkeypatch.setenv("METAREP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("METAREP_DATA", str(tmp_path))
    monkeypatch.setattr(caltech101, "counts", lambda: KNOWN)
    return tmp_path


def test_each_picture_of_any_shape_is_in_its_place_whatever_the_order_of_the_archive(small: Path) -> None:
    extra = {"BACKGROUND_Google/image_0001": b"", "Faces_easy/image_0001": picture(9)}
    write(small, dict(reversed(pictures().items())) | extra)
    parts = {part: load_dataset("caltech-101", part) for part in KNOWN}
    assert [part.labels.names for part in parts.values()] == [("ant",), ("beaver",), ("crab",)]
    assert [part.bank.images.shape for part in parts.values()] == [(n, 3, 84, 84) for n in (2, 1, 2)]
    means = [image.float().mean().round().item() for part in parts.values() for image in part.bank.images]
    assert means == pytest.approx([0, 40, 80, 120, 160], abs=1)
    assert load_dataset("caltech-101", "trainval", size=28).bank.images.shape == (3, 3, 28, 28)


BROKEN = {
    "a picture is missing": ({"crab/image_0002": None}, "holds 4 of the 5 photographs of Caltech-101"),
    "a picture is twice": (
        {"crab/image_0002": None, "sub/101_ObjectCategories/crab/image_0001": picture(1)},
        "holds 4",
    ),
    "a class too many": ({"dodo/image_0001": picture(1)}, "dodo/image_0001.jpg, which Caltech-101 does not have"),
    "a picture too many": ({"crab/image_0003": picture(1)}, "crab/image_0003.jpg, which Caltech-101 does not have"),
    "no picture": ({"ant/image_0001": b"GIF"}, "ant/image_0001.jpg, "),
    "a way out": ({"../../ant/image_0001": picture(1)}, "would leave its folder"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_not_caltech_101_is_refused(small: Path, name: str) -> None:
    change, message = BROKEN[name]
    write(small, {name: content for name, content in (pictures() | change).items() if content is not None})
    with pytest.raises(DataError, match=message):
        load_dataset("caltech-101")


def test_other_archives_are_refused(small: Path) -> None:
    write(small, pictures(), inner="annotations.tar.gz")
    with pytest.raises(DataError, match="has no entry 101_ObjectCategories"):
        load_dataset("caltech-101")
    path = small / caltech101.ARCHIVE
    write(small, pictures())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="damaged or half-downloaded"):
        load_dataset("caltech-101")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(caltech101.INNER, b"\x1f\x8b not a tar")
    with pytest.raises(DataError, match="damaged or half-downloaded"):
        load_dataset("caltech-101")
    with pytest.raises(DataError, match="has no variants"):
        load_dataset("caltech-101:easy")


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("METAREP_DATA"), reason="METAREP_DATA is not set: it names the official archives"
)
def test_the_official_archive_has_every_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAREP_CACHE", str(tmp_path))
    parts = {part: load_dataset("caltech-101", part) for part in KNOWN}
    assert [len(part.bank) for part in parts.values()] == [5775, 1259, 1208]
    assert [len(part.labels.names) for part in parts.values()] == [64, 16, 20]
    names = [name for part in parts.values() for name in part.labels.names]
    assert len(set(names)) == 100
    assert not {"Faces_easy", "BACKGROUND_Google"} & set(names)
    assert min(int(part.labels.counts.min()) for part in parts.values()) == 31
    images = np.concatenate([part.bank.images.numpy() for part in parts.values()])
    grey = (images[:, 0] == images[:, 1]).all((1, 2)) & (images[:, 0] == images[:, 2]).all((1, 2))
    assert 405 <= grey.sum() <= 425, "Pillow's JPEG decoder decides about some"
    assert images.std(axis=(2, 3)).max(1).min() > 0, "no picture is blank"
