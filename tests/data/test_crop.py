"""Every picture is cut within its edges, whatever its shape, and an array as the file of the same picture."""

import io
import os
import tarfile
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from metarep.data.reading import decode as module
from metarep.data.reading.decode import crop_box, decode, decode_all
from metarep.data.reading.photographs import STRETCH, read_images
from metarep.encoders import Preprocess
from metarep.errors import DataError, MetarepError

SIZES = (28, 84, 105, 128, 160, 224)
CALTECH = Path(os.environ.get("METAREP_DATA") or "nowhere") / "caltech-101.zip"
real = pytest.mark.skipif(not CALTECH.is_file(), reason="METAREP_DATA names no folder with caltech-101.zip")

sides = st.integers(1, 10_000)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True)
@given(sides, sides, st.one_of(st.sampled_from(SIZES), st.integers(1, 512)), st.integers(1, 512), st.floats(1, 4))
@example(555, 367, 84, 84, 1.0)  # box offset can't be negative
@example(262, 123, 28, 28, 4 / 3)
@example(1, 10_000, 224, 224, 4 / 3)
def test_what_is_kept_lies_in_the_picture(width: int, height: int, tall: int, wide: int, stretch: float) -> None:
    left, top, right, bottom = crop_box(width, height, (tall, wide), stretch)
    single = np.float32([left, top, right, bottom])  # as Pillow has them
    assert (single[:2] >= 0).all()
    assert single[2] <= width
    assert single[3] <= height
    assert (single[2:] > single[:2]).all() or min(right - left, bottom - top) > 0
    across, down = (right - left) / wide, (bottom - top) / tall
    assert max(across / down, down / across) <= stretch * (1 + 1e-9), "no shape is squeezed more than is allowed"
    assert np.isclose(right - left, width) or np.isclose(bottom - top, height), "one side is kept whole"
    assert np.isclose(left, width - right, atol=1e-6)
    assert np.isclose(top, height - bottom, atol=1e-6)
    if width * height <= 20_000:
        found = decode(Image.new("L", (width, height)), size=(tall, wide), channels=1, name="it", stretch=stretch)
        assert found.shape == (1, tall, wide)


def jpegs(number: int | None) -> Iterator[tuple[bytes, str]]:
    """The photographs of Caltech-101, unpacked as they are read."""
    with (
        zipfile.ZipFile(CALTECH) as outer,
        outer.open("caltech-101/101_ObjectCategories.tar.gz") as inner,
        tarfile.open(fileobj=inner, mode="r|gz") as archive,
    ):
        for member in islice((each for each in archive if each.isfile()), number):
            file = archive.extractfile(member)
            assert file
            yield file.read(), member.name


@real
@pytest.mark.parametrize("number", [60, pytest.param(None, marks=pytest.mark.proof)])
def test_all_of_caltech_101_is_read(number: int | None) -> None:
    files = list(jpegs(number))
    assert len(files) == (number or 9144)
    for size in SIZES:
        for stretch in (1.0, STRETCH) if number else (1.0 if size in (28, 84, 105) else STRETCH,):
            found = decode_all(files, size=(size, size), channels=3, stretch=stretch)
            assert [str(each) for each in found if isinstance(each, DataError)] == []


def test_our_own_fault_is_not_said_to_be_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "crop_box", lambda *_: (-1.0, 0.0, 10.0, 10.0))
    with pytest.raises(
        MetarepError, match=r"10 x 10 pixels, could not be scaled .* a fault of metarep and not"
    ) as told:
        decode(Image.new("L", (10, 10)), size=(4, 4), channels=1, name="fine.png")
    assert not isinstance(told.value, DataError), "or --skip-bad would leave the file out"
    assert "damaged" not in str(told.value)


@pytest.mark.parametrize("shape", [(90, 160, 3), (60, 180, 3), (180, 60), (48, 64, 3), (32, 32, 3), (32, 32)])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_array_is_treated_as_its_file(shape: tuple[int, ...], channels: int) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    preprocess = Preprocess((32, 32), channels, (0.5,) * channels, (0.5,) * channels)
    as_file = next(read_images([file.getvalue()], preprocess))
    first = array if array.ndim == 2 else array.transpose(2, 0, 1)
    for images in ([array], array[None], torch.from_numpy(array)[None], torch.from_numpy(first.copy())[None]):
        assert torch.equal(next(read_images(images, preprocess)), as_file)
    assert as_file.shape == (1, channels, 32, 32)


def test_one_picture_alone_is_no_list_of_pictures() -> None:
    preprocess = Preprocess((32, 32), 3, (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(MetarepError, match=r"an array of shape \(48, 64, 3\) is one picture; put it into a list"):
        next(read_images(np.zeros((48, 64, 3), np.uint8), preprocess))
