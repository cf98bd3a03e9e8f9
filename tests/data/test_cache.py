"""The cache: built once, never half-written, rebuilt when it cannot be opened, checked when asked."""

import errno
import json
import multiprocessing
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from metarep.data.banks import writer
from metarep.data.banks.manifest import Manifest
from metarep.data.datasets import cache
from metarep.data.datasets.cache import cache_dir, cached_images
from metarep.errors import DataError
from metarep.machine import files

IMAGES = np.arange(6 * 3 * 4 * 5, dtype=np.uint8).reshape(6, 3, 4, 5)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METAREP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def build() -> tuple[np.ndarray, dict]:
    return IMAGES, {"names": ("a", "b")}


def never() -> tuple[np.ndarray, dict]:
    raise AssertionError("built again")


def folder_of(place: Path) -> Path:
    return next(path for path in place.iterdir() if path.is_dir())


def test_built_once_and_equal_each_time(place: Path) -> None:
    first, facts = cached_images("digits", build)
    second, again = cached_images("digits", never)
    assert torch.equal(first, torch.from_numpy(IMAGES))
    assert torch.equal(second, first)
    assert facts == again == {"names": ["a", "b"]}
    assert {path.name for path in folder_of(place).iterdir()} == {"images.npy", "bank.json"}


def test_writing_to_the_tensor_changes_nothing_on_disk() -> None:
    cached_images("digits", build)[0].fill_(0)
    assert torch.equal(cached_images("digits", never)[0], torch.from_numpy(IMAGES))


def test_a_transposed_view_is_stored_in_its_own_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "CHUNK", 100)  # several pieces, the last one short
    last = np.ascontiguousarray(IMAGES.transpose(0, 2, 3, 1))
    assert torch.equal(cached_images("view", lambda: (last.transpose(0, 3, 1, 2), {}))[0], torch.from_numpy(IMAGES))


@pytest.mark.parametrize(
    "damage", ["truncated", "no pixels", "no manifest", "torn manifest", "other rows", "other path", "empty"]
)
def test_a_damaged_folder_is_built_again(place: Path, damage: str) -> None:
    cached_images("digits", build)
    pixels, manifest = folder_of(place) / "images.npy", folder_of(place) / "bank.json"
    content = pixels.read_bytes()
    match damage:
        case "truncated":
            pixels.write_bytes(content[:-7])
        case "no pixels":
            pixels.unlink()
        case "no manifest":
            manifest.unlink()
        case "torn manifest":
            manifest.write_text(manifest.read_text()[:20])
        case "other rows":
            manifest.write_text(manifest.read_text().replace('"rows": 6', '"rows": 600000000000'))
        case "other path":
            manifest.write_text(manifest.read_text().replace("images.npy", "../images.npy"))
        case "empty":
            pixels.unlink()
            manifest.unlink()
    calls = []
    images, _ = cached_images("digits", lambda: (calls.append(1), build())[1])
    assert calls == [1]
    assert torch.equal(images, torch.from_numpy(IMAGES))
    cached_images("digits", never)


def test_what_was_written_is_checked_when_asked_and_by_the_file(place: Path) -> None:
    cached_images("digits", build)
    folder = folder_of(place)
    assert [damaged for _, damaged in Manifest.read(folder).damaged(folder)] == [False]
    content = (folder / "images.npy").read_bytes()
    (folder / "images.npy").write_bytes(content[:-7] + bytes([content[-7] ^ 1]) + content[-6:])
    cached_images("digits", never)  # opened without being read
    assert [damaged for _, damaged in Manifest.read(folder).damaged(folder)] == [True]


def test_a_folder_of_an_earlier_version_is_opened_and_said(place: Path) -> None:
    folder = place / "digits-f1"
    folder.mkdir(parents=True)
    np.save(folder / "images.npy", IMAGES)
    checksum = zlib.crc32((folder / "images.npy").read_bytes())
    meta = {"shape": IMAGES.shape, "checksum": checksum, "facts": {"names": ["a"]}}
    (folder / "meta.json").write_text(json.dumps(meta))
    with cache.watching() as used:
        images, facts = cached_images("digits", never)
        cached_images("others", build)
        cached_images("others", never)
    assert torch.equal(images, torch.from_numpy(IMAGES))
    assert facts == {"names": ["a"]}
    assert used == [(folder, "opened, of an earlier version"), (place / "others-f2", "made")]
    assert [damaged for _, damaged in Manifest.read(folder).damaged(folder)] == [False]


def test_what_a_crash_left_is_neither_read_nor_kept(place: Path) -> None:
    cached_images("digits", build)
    good = folder_of(place)
    left = good.with_name(f".{good.name}.123-abc.part")
    good.rename(left)  # as if the process had died just before the rename
    calls = []
    cached_images("digits", lambda: (calls.append(1), build())[1])
    assert calls == [1]
    assert not left.exists()


def test_a_builder_that_fails_leaves_nothing(place: Path) -> None:
    with pytest.raises(DataError, match="bad image"):
        cached_images("digits", lambda: (_ for _ in ()).throw(DataError("bad image")))
    assert [path for path in place.iterdir() if path.is_dir()] == []
    cached_images("digits", build)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_how_much_and_where(place: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def full(*_: object) -> None:
        raise OSError(number, "full")

    with monkeypatch.context() as patch:
        patch.setattr(cache, "write_shard", full)
        with pytest.raises(DataError) as caught:
            cached_images("digits", lambda: (np.zeros((1000, 1, 50, 50), np.uint8), {}))
    assert "2.5 MB" in str(caught.value)
    assert str(place) in str(caught.value)
    assert "METAREP_CACHE" in str(caught.value)
    assert [path for path in place.iterdir() if path.is_dir()] == []
    cached_images("digits", build)


def test_a_path_that_cannot_hold_folders_is_an_error_that_names_it(place: Path) -> None:
    place.write_text("a file where the cache should be")
    with pytest.raises(DataError, match="METAREP_CACHE"):
        cached_images("digits", build)


@pytest.mark.parametrize("key", ["../digits", "a/b", ".hidden", ""])
def test_a_key_cannot_leave_the_cache(key: str) -> None:
    with pytest.raises(ValueError, match="cache key"):
        cached_images(key, never)


@pytest.mark.parametrize("images", [IMAGES[0], IMAGES.astype(np.int16), IMAGES[:0]])
def test_only_uint8_images_are_stored(images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8 images"):
        cached_images("digits", lambda: (images, {}))


def test_the_cache_folder_is_the_set_one_or_the_users_own(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_dir() == place
    monkeypatch.delenv("METAREP_CACHE")
    assert cache_dir() == Path.home() / ".cache" / "metarep"


def _without_locks(*_: object, **__: object) -> bool:
    raise OSError(errno.ENOLCK, "No locks available")


def _build_slowly(log: Path, start: "multiprocessing.synchronize.Barrier", locks: bool) -> None:
    if not locks:
        files.lock_descriptor = _without_locks

    def slow() -> tuple[np.ndarray, dict]:
        with open(log, "a") as file:
            file.write("built\n")
        time.sleep(0.3)
        return build()

    start.wait()
    assert torch.equal(cached_images("digits", slow)[0], torch.from_numpy(IMAGES))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 on; the children use no threads
@pytest.mark.parametrize("locks", [True, False], ids=["with locks", "without locks"])
def test_processes_at_once_build_one_folder(place: Path, tmp_path: Path, locks: bool) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Barrier(3)
    jobs = [context.Process(target=_build_slowly, args=(tmp_path / "log", start, locks)) for _ in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(30)
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    assert len((tmp_path / "log").read_text().split()) == (1 if locks else 3)
    assert len([path for path in place.iterdir() if path.is_dir()]) == 1  # and no temporary folders
    cached_images("digits", never)
