"""Pictures of more than 8 bits: what their numbers mean is seen from all of a folder, said, and remembered."""

import io
import json
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metarep.app.limits import Limits
from metarep.app.service import Service
from metarep.cli import main
from metarep.data.datasets import load_dataset
from metarep.data.images import ImageBank
from metarep.data.reading.decode import decode
from metarep.data.reading.depth import Depth, DepthWarning, assume
from metarep.data.reading.depth_survey import notice
from metarep.errors import DataError
from metarep.model.classifier import FewShotClassifier
from metarep.model.folder import ModelFolder
from metarep.search.image_index import ImageIndex
from metarep.weights.named import load_representation

ENCODER = "omniglot-protonet"
SLOPE = np.linspace(0, 1, 64 * 64).reshape(64, 64)


def tiff(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF")
    return file.getvalue()


def colour_png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a colour, which Pillow cannot write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, {3: 2, 4: 6}[values.shape[2]], 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def small_tiff(bits: int, photometric: int, content: bytes) -> bytes:
    """Two pixels in a row, in a TIFF that Pillow cannot write."""
    tags = {256: 2, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 1, 279: len(content)}
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    start = 8 + len(content) + len(content) % 2
    body = content + b"\0" * (len(content) % 2)
    return b"II*\0" + struct.pack("<I", start) + body + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"


def greys(content: bytes, depth: Depth | None = None) -> np.ndarray:
    return decode(content, size=None, channels=1, name="it.tif", depth=depth)[0]


CAMERAS = {  # what the pixels are, what is taken for black and white, how many greys are left of 256
    "8 bits in 16": ((SLOPE * 255).astype(np.uint16), (0, 255), 256),
    "10 bits": ((SLOPE * 1020).astype(np.uint16), (0, 1023), 250),
    "12 bits": ((SLOPE * 4080).astype(np.uint16), (0, 4095), 250),
    "14 bits": ((SLOPE * 16000).astype(np.uint16), (0, 16383), 245),
    "16 bits": ((SLOPE * 65535).astype(np.uint16), (0, 65535), 256),
    "a thermal camera": ((28000 + SLOPE * 3000).astype(np.uint16), (28000, 31000), 256),
    "degrees": ((18 + SLOPE * 21).astype(np.float32), (18, 39), 256),
    "0 to 1": ((SLOPE * 0.98).astype(np.float32), (0, 1), 250),
    "32 bits": ((SLOPE * 1_000_000).astype(np.int32), (0, 1_000_000), 256),
    "below zero": ((SLOPE * 3000 - 1000).astype(np.int32), (-1000, 2000), 256),
}


@pytest.mark.parametrize("camera", CAMERAS)
def test_the_range_of_all_pictures_is_noticed_and_said(camera: str) -> None:
    values, expected, left = CAMERAS[camera]
    dark = values[:20].copy()  # the lowest third
    files = [(tiff(each), "it") for each in (dark, values)]
    if camera == "16 bits":
        depth = notice(files)  # what the file says itself: there is nothing to tell
    else:
        with pytest.warns(DepthWarning, match=r"2 pictures have .* for white.*; say depth=BITS or BLACK:WHITE"):
            depth = notice(files)
    (found,) = depth.ranges.values()
    assert found == pytest.approx(expected, abs=2 if expected[0] or expected[1] > 70_000 else 0, rel=1e-2)
    bright = greys(tiff(values), depth)
    assert len(np.unique(bright)) >= left
    assert np.abs(greys(tiff(dark), depth).astype(int) - bright[:20]).max() == 0, "a dark picture is no brighter alone"


def test_a_dead_and_a_hot_pixel_change_nothing() -> None:
    values = (28000 + np.random.default_rng(0).random((200, 200)) * 3000).astype(np.uint16)
    values[3, 4], values[5, 6] = 0, 65535
    with pytest.warns(DepthWarning, match="from 28,00. to 30,99."):
        low, high = notice([(tiff(values), "it")]).ranges["16-bit"]
    assert 27990 < low < 28010
    assert 30990 < high < 31010


def test_a_given_depth_is_taken_without_a_warning() -> None:
    content = tiff(np.array([[0, 512, 1023]], np.uint16))
    assert notice([(content, "it")], Depth.of(12)).ranges["16-bit"] == (0, 4095)
    assert greys(content, Depth.of(10)).tolist() == [[0, 128, 255]]
    assert greys(content, Depth.of("512:1024")).tolist() == [[0, 0, 255]]
    assert Depth.of({"16-bit": [0, 4095]}) == Depth({"16-bit": (0, 4095)}) == Depth.of(Depth.of({"16-bit": [0, 4095]}))
    for wrong in ("deep", "0", "33", "5:5", "9:1", "1:2:3", "nan:1", 1.5, {"16-bit": 4}):
        with pytest.raises(DataError, match="depth is a number of bits from 1 to 32, as in 12, or black and white"):
            Depth.of(wrong)  # type: ignore[arg-type]
    assert assume(7, 7) == (0, 255)
    assert assume(-7, -7)[0] < -7


def test_files_that_say_their_white_are_taken_at_their_word() -> None:
    pgm = b"P5 2 1 1023\n" + np.array([0, 512], ">u2").tobytes()
    assert greys(pgm, Depth.of(16)).tolist() == [[0, 128]]
    twelve = small_tiff(12, 1, bytes([0x40, 0x0F, 0xFF]))  # 1024 and 4095
    assert greys(twelve, Depth.of(16)).tolist() == [[64, 255]]
    upside_down = small_tiff(16, 0, struct.pack("<HH", 0, 65535))
    assert greys(upside_down, Depth.of(16)).tolist() == [[255, 0]]
    assert notice([(pgm, "a"), (twelve, "b")]) == Depth(), "and nothing is assumed"
    unknown = np.array([[0.0, np.nan, 1.0, np.inf]], np.float32)
    assert greys(tiff(unknown)).tolist() == [[0, 0, 255, 255]], "what was not measured is black"


def test_colours_of_16_bits_keep_them() -> None:
    slopes = np.stack([SLOPE, SLOPE.T, SLOPE[::-1]], -1)
    twelve = colour_png((slopes * 4080).astype(np.uint16))
    with pytest.warns(DepthWarning, match=r"1 picture has 16-bit pixels, from 0 to 4,0.*4,095 for white \(12 bits\)"):
        depth = notice([(twelve, "it")])
    found = decode(twelve, size=None, channels=3, name="it", depth=depth)
    assert np.abs(found.astype(int) - (slopes * 254).round().transpose(2, 0, 1)).max() <= 1
    clear = np.concatenate([np.full((4, 4, 3), 4095), np.zeros((4, 4, 1))], -1)
    clear[:2, :, 3] = 65535
    clear[:2, :, :3] = 2048
    found = decode(colour_png(clear.astype(np.uint16)), size=None, channels=1, name="it", depth=Depth.of(12))
    assert np.unique(found[0, :2]).tolist() == [128]
    assert np.unique(found[0, 2:]).tolist() == [255], "what is transparent is white"


def test_a_class_of_another_camera_is_warned_of(tmp_path: Path) -> None:
    for name, most in (("old", 1000), ("new", 65000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.tif").write_bytes(tiff((SLOPE * most).astype(np.uint16)))
    paths = sorted(tmp_path.rglob("*.tif"))
    with pytest.warns(DepthWarning, match="Those in old reach a sixteenth of that or less"):
        notice([(path, path.name) for path in paths])


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of a camera of 12 bits, which differ in their fine greys."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METAREP_CACHE", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    for name, shape in (("across", SLOPE), ("down", SLOPE.T), ("both", SLOPE * SLOPE.T)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            values = (shape * 3000 + random.random((64, 64)) * 1000).astype(np.uint16)
            (tmp_path / "photos" / name / f"{number}.tif").write_bytes(tiff(values))
    (tmp_path / "dark.tif").write_bytes(tiff((SLOPE * 400).astype(np.uint16)))
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "dark.tif").write_bytes(tiff((SLOPE * 400).astype(np.uint16)))
    return tmp_path / "photos"


@pytest.mark.slow
@pytest.mark.filterwarnings("always::metarep.data.reading.depth.DepthWarning")
def test_a_model_reads_new_files_as_it_read_its_own(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "photos", "--out", "model", "--encoder", ENCODER]) == 0
    told = capsys.readouterr()
    assert "12 pictures have 16-bit pixels" in told.err
    assert "4,095 for white (12 bits)" in told.err
    assert main(["predict", "model", "dark.tif", "--json"]) == 0
    told = capsys.readouterr()
    assert "bits" not in told.err, "nothing is assumed: it is known"
    answer = json.loads(told.out)[0]["probabilities"]
    folder = ModelFolder.open(Path("model"))
    right = decode(Path("dark.tif"), size=(28, 28), channels=1, name="", stretch=4 / 3, depth=Depth.of(12))
    alone = decode(Path("dark.tif"), size=(28, 28), channels=1, name="", stretch=4 / 3)
    assert right.max() < 30 < 90 < alone.max(), "a dark picture alone is taken for a bright one of fewer bits"
    expected = folder.model.answer(folder.model.prepare(right[None]))[0]
    assert answer == pytest.approx(expected.probabilities, abs=1e-5)
    with open("dark.tif", "rb") as file:
        assert (Service(folder, Limits())._decode(file, "dark.tif") == right).all(), "so does a server"
    assert main(["predict", "model", "dark.tif", "--json", "--depth", "10"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["probabilities"] != pytest.approx(answer, abs=1e-5)
    assert main(["add", "model", "late"]) == 0
    folder = ModelFolder.open(Path("model"))
    with Image.open(folder.image(int(folder.model.gallery.ids[-1]))) as kept:
        assert (np.array(kept) == right[0]).all()
    assert folder.model.depth.ranges == {"16-bit": (0, 4095)}
    assert main(["fit", "photos", "--out", "other", "--encoder", ENCODER, "--depth", "bits"]) == 2
    assert "depth is a number of bits from 1 to 32" in capsys.readouterr().err


@pytest.mark.filterwarnings("always::metarep.data.reading.depth.DepthWarning")
def test_an_index_reads_new_files_as_it_read_its_own(photos: Path) -> None:
    with ImageIndex.create(Path("an.index"), load_representation(ENCODER)) as index:
        with pytest.warns(DepthWarning, match="12 bits"):
            index.add([photos])
        index.add([Path("late")])
    with ImageIndex(Path("an.index")) as index:
        assert index.embedder.depth.ranges == {"16-bit": (0, 4095)}
        (hits,) = index.search([Path("dark.tif")], 1)
        assert hits[0].path.endswith("late/dark.tif")
        assert hits[0].score == pytest.approx(1, abs=1e-5)
    (Path("an.index") / "depth.json").write_text("[]x")
    with pytest.raises(DataError, match=r"depth\.json is damaged"):
        ImageIndex(Path("an.index"))


@pytest.mark.slow
@pytest.mark.filterwarnings("always::UserWarning")
def test_a_run_remembers_how_its_files_were_read(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in ("train/a", "train/b", "val/c", "test/d", "test/e"):
        (Path("split") / place).mkdir(parents=True)
        for number in range(3):  # the test pictures are dark: alone, they would be taken for 10 bits
            values = SLOPE * (4000 if place[0] == "t" and place[1] == "r" else 900) + ord(place[-1]) * number % 50
            (Path("split") / place / f"{number}.tif").write_bytes(tiff(values.astype(np.uint16)))
    (Path("split") / "test" / "d" / "broken.png").write_bytes(b"")
    train = ["train", "protonet", "--data", "folder:split", "--size", "28", "--out", "run", "--train-on", "trainval"]
    train += ["--steps", "2", "--shots", "1", "--queries", "1", "--width", "32"]
    assert main([*train, "--skip-bad"]) == 0
    told = capsys.readouterr()
    assert "LEFT OUT: 1 of 16 images (6.2 %)" in told.err
    data = json.loads(Path("run/settings.json").read_text())["data"]
    assert (data["skip_bad"], data["depth"]) == (True, {"16-bit": [0, 4095]})
    following = told.out.splitlines()[-1].removeprefix("next: metarep ").split()
    shutil.rmtree("split/train")  # without them nothing bright is left
    measure = ["--ways", "2", "--queries", "1", "--tasks", "5", "--no-references", "--json"]
    assert main([*following, *measure]) == 0, "what is printed as the next command works"
    told = capsys.readouterr()
    assert "broken.png is an empty file" in told.err
    assert "for white" not in told.err, "and nothing is assumed anew"
    assert main(train) == 2, "without --skip-bad the folder is as bad as before"


def test_pictures_of_a_data_set_are_read_alike() -> None:
    items = [(Image.fromarray((SLOPE * most).astype(np.uint16)), label) for most, label in ((400, "dark"), (4000, "b"))]
    with pytest.warns(DepthWarning, match="12 bits"):
        bank, _ = ImageBank.from_dataset(items)
    assert bank.images.amax((1, 2, 3)).tolist() == [25, 249]
    assert ImageBank.from_dataset(items, depth=14)[0].images.amax((1, 2, 3)).tolist() == [6, 62]


def test_an_estimator_reads_new_pictures_as_it_read_its_own(photos: Path) -> None:
    pictures = [Image.open(path) for path in sorted(photos.rglob("*.tif"))]
    labels = [path.parent.name for path in sorted(photos.rglob("*.tif"))]
    with pytest.warns(DepthWarning, match="12 bits"):
        classifier = FewShotClassifier(ENCODER).fit(pictures, labels)
    told = FewShotClassifier(ENCODER, depth=12).fit(pictures, labels)
    dark = [Image.open("dark.tif")]
    assert np.array_equal(classifier.transform(dark), told.transform(dark))
    other = FewShotClassifier(ENCODER, depth=10).fit(pictures, labels)
    assert not np.allclose(classifier.transform(dark), other.transform(dark))


def test_a_folder_is_read_by_all_of_its_classes(photos: Path) -> None:
    for _ in range(2):  # decoded, then from the cache
        with pytest.warns(DepthWarning, match="12 bits"):
            split = load_dataset("folder:photos", "all", size=28)
    assert split.depth.ranges == {"16-bit": (0, 4095)}
    assert (
        load_dataset("folder:photos", "all", size=28, depth=14).bank.images.max() < 70 < 200 < split.bank.images.max()
    )
