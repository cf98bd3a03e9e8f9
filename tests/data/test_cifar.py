"""CIFAR-FS and FC100: the real archive where METAREP_DATA has it, and small broken or hostile ones."""

import io
import os
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from metarep.data.datasets import Options, cifar, load_dataset
from metarep.data.split import Split
from metarep.errors import DataError

REAL = os.environ.get("METAREP_DATA")
without = pytest.mark.skipif(not REAL, reason="METAREP_DATA is not set: it names the folder with the official archives")


def real(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that decodes an official archive: seconds, and only where the archive is."""
    return pytest.mark.slow(without(test))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the file, so that the real archives are decoded here, and once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAREP_CACHE", str(place))


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own for data, and nothing cached."""
    monkeypatch.setenv("METAREP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("METAREP_DATA", str(tmp_path))
    return tmp_path


def parts_of(spec: str) -> dict[str, Split]:
    return {part: load_dataset(spec, part) for part in ("train", "val", "test")}


@real
@pytest.mark.parametrize(("spec", "counts"), [("cifar-fs", (64, 16, 20)), ("fc100", (60, 20, 20))])
def test_cifar_has_six_hundred_of_every_class(spec: str, counts: tuple[int, ...]) -> None:
    parts = parts_of(spec)
    assert tuple(len(part.labels.names) for part in parts.values()) == counts
    assert all(part.labels.counts.unique().tolist() == [600] for part in parts.values())
    keys = {key for part in parts.values() for key in part.labels.keys}
    images, names = cifar.load_classes(Options())
    assert keys == {f"cifar-100/{name}" for name in names}, "both data sets know the classes that they share"
    test = parts["test"]
    for number in (0, 7):
        row = names.index(test.labels.names[number])
        assert torch.equal(test.bank.images[test.labels.classes == number], images[600 * row :][:600])


@real
def test_cifar_pixels_are_the_official_ones() -> None:
    images, names = cifar.load_classes(Options())
    total = squares = np.zeros(3)
    for train in images.view(100, 600, 3, 1024)[:, :500].numpy():  # a class at a time: all of it in float64 is 1.2 GB
        scaled = train.astype(np.float32).transpose(1, 0, 2).reshape(3, -1) / 255
        total, squares = total + scaled.sum(1, dtype=float), squares + np.square(scaled).sum(1, dtype=float)
    mean = total / (50_000 * 1024)
    # As commonly published for the train part of CIFAR-100.
    np.testing.assert_allclose(mean, [0.50707516, 0.48654887, 0.44091784], atol=1e-6)
    np.testing.assert_allclose(
        np.sqrt(squares / (50_000 * 1024) - mean**2), [0.26733429, 0.25643846, 0.27615047], atol=1e-6
    )
    assert names == sorted(names)
    apple, sea = (images[600 * names.index(name) :][:600].float().mean((0, 2, 3)) for name in ("apple", "sea"))
    assert apple[0] > apple[2]  # red above blue; at sea it is the other way round
    assert sea[0] < sea[2]


@real
def test_the_order_of_the_archive_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images, names = cifar.load_classes(Options())
    rng = np.random.default_rng(0)
    official = rng.permutation(100)  # alphabetical number of each official number
    number = np.argsort(official)
    parts: dict = {"meta": {"fine_label_names": [names[row].encode() for row in official]}}
    for part, rows in (("train", slice(0, 500)), ("test", slice(500, 600))):
        pixels = images.numpy().reshape(100, 600, 3072)[:, rows].reshape(-1, 3072)
        order = rng.permutation(len(pixels))
        a_class = rows.stop - rows.start
        files = [b"%06d.png" % (row % a_class) for row in order]
        parts[part] = {"data": pixels[order], "fine_labels": number[order // a_class].tolist(), "filenames": files}
    monkeypatch.setattr(cifar, "_read_archive", lambda _: dict(parts))
    shuffled, again = cifar._decode(Path(REAL) / cifar.ARCHIVE)
    assert again == names
    np.testing.assert_array_equal(shuffled, images.numpy())
    del shuffled
    monkeypatch.setattr(cifar, "_digest", lambda *_: "another")
    with pytest.raises(DataError, match=r"does not hold CIFAR-100's images \(digest another\)"):
        cifar._decode(Path(REAL) / cifar.ARCHIVE)


@real
def test_cifar_with_one_pixel_wrong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    images, names = cifar.load_classes(Options())
    wrong = images.numpy().reshape(100, 600, 3, 32, 32).copy()
    assert cifar._digest(wrong, names) == cifar.DIGEST
    wrong[7, 7, 0, 0, 0] ^= 1
    assert cifar._digest(wrong, names) != cifar.DIGEST


def write_tar(path: Path, entries: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


HOSTILE = b"cos\nsystem\n(S'touch hostile'\ntR."
EMPTY = b"\x80\x02}."


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"c/train": HOSTILE}, "entry train, asks for 'os.system'.*hostile"),
        ({"c/train": EMPTY, "c/test": EMPTY}, "no entry meta"),
        ({"c/train": EMPTY, "c/test": EMPTY, "c/meta": EMPTY}, "does not hold CIFAR-100 .'fine_label_names'"),
        ({"c/train": b"\x80\x02}"}, "damaged or half-downloaded"),
        ({"../c/train": EMPTY}, "would leave its folder"),
    ],
)
def test_a_bad_cifar_archive_is_refused_by_name(
    bare: Path, entries: dict[str, bytes], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bare)
    write_tar(bare / cifar.ARCHIVE, entries)
    with pytest.raises(DataError, match=words) as caught:
        load_dataset("fc100")
    assert cifar.ARCHIVE in str(caught.value)
    assert not (bare / "hostile").exists()


def test_a_large_entry_is_read_in_little_memory(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(4_000_000)
    pickled = b"\x80\x02}U\x04dataT" + len(noise).to_bytes(4, "little") + noise + b"s."  # as Python 2 wrote them
    write_tar(tmp_path / cifar.ARCHIVE, {"c/meta": EMPTY, "c/train": pickled, "c/test": EMPTY})
    tracemalloc.start()
    try:
        parts = cifar._read_archive(tmp_path / cifar.ARCHIVE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert parts["train"] == {"data": noise}
    assert peak < 2.5 * len(noise), "what unpickling takes, and none of the tar reader's copies"


@pytest.mark.parametrize("keep", [0, 10, 20_000])
def test_a_half_downloaded_tar_is_refused_by_name(bare: Path, keep: int) -> None:
    noise = np.random.default_rng(0).bytes(50_000)
    write_tar(bare / cifar.ARCHIVE, {"c/readme": noise, "c/train": EMPTY, "c/test": EMPTY, "c/meta": EMPTY})
    (bare / cifar.ARCHIVE).write_bytes((bare / cifar.ARCHIVE).read_bytes()[:keep])
    with pytest.raises(DataError, match=f"{cifar.ARCHIVE} is damaged or half-downloaded"):
        load_dataset("cifar-fs")
