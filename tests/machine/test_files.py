"""Files and folders: they are complete or absent, also with several writers and after a kill."""

import os
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from racing import at_once

from metarep.errors import MetarepError
from metarep.machine import files
from metarep.machine.files import making, read_tensors, replacing, write_tensors

THERE, BUSY = "there is one", "another makes it"


def refusals() -> dict[str, MetarepError]:
    return {"exists": MetarepError(THERE), "busy": MetarepError(BUSY)}


@pytest.mark.slow
def test_a_file_that_many_write_is_always_whole(tmp_path: Path) -> None:
    path, done = tmp_path / "numbers", threading.Event()

    def write(digit: str) -> None:
        for _ in range(20):
            with replacing(path) as partial:
                partial.write_text(digit * 500)
                with partial.open("a") as file:  # without a lock two writers would mix their contents here
                    file.write(digit * 500)

    def read() -> set[str]:
        seen: set[str] = set()
        while not done.is_set():
            seen.add(path.read_text() if path.exists() else "")
        return seen

    with ThreadPoolExecutor(1) as reader:
        contents = reader.submit(read)
        try:
            assert at_once(*(partial(write, digit) for digit in "1234")) == [None] * 4
        finally:
            done.set()
    assert contents.result() <= {"", *(digit * 1000 for digit in "1234")}
    assert os.listdir(tmp_path) == ["numbers"]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    """A folder with its lock and half a file; or the single file of an older version."""
    for name in ("folder", "file"):
        left = tmp_path / f"{name}.part"
        if name == "folder":
            left.mkdir()
            (left / ".writing").touch()
            (left / "deep").mkdir()
        (left / "half" if name == "folder" else left).write_text("half")
        with replacing(tmp_path / name) as partial:
            assert sorted(os.listdir(left)) == [".writing", name]
            partial.write_text("whole")
        assert not left.exists()
        assert (tmp_path / name).read_text() == "whole"


@pytest.mark.slow
def test_a_folder_is_made_by_one(tmp_path: Path) -> None:
    """In each of 60 rounds one folder is complete and the other writers are refused; also inside an empty folder."""

    def make(target: Path, number: int) -> int:
        with making(target, "last", ("first",), **refusals()) as folder:
            (folder / "first").write_text(str(number))
            time.sleep(0.0005 * (number % 3))
            (folder / "last").write_text(str(number))
        return number

    for turn in range(60):
        target = tmp_path / f"a folder {turn}"
        if turn % 2:
            target.mkdir()
        said = at_once(*(partial(make, target, number) for number in range(3)))
        winner = [each for each in said if isinstance(each, int)]
        assert len(winner) == 1
        assert {each for each in said if isinstance(each, str)} <= {THERE, BUSY}
        assert {name: (target / name).read_text() for name in os.listdir(target)} == {
            "first": str(winner[0]),
            "last": str(winner[0]),
        }
    assert len(os.listdir(tmp_path)) == 60


def test_a_folder_is_made_by_one_where_none_with_an_open_file_can_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows: the lock is beside the folder, and is removed at the end."""
    monkeypatch.setattr(files, "MOVES_OPEN", False)
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        with making(tmp_path / name, "last", ("first",), **refusals()) as folder:
            (folder / "last").write_text("whole")
            assert [each.name for each in folder.iterdir()] == ["last"]
            with pytest.raises(MetarepError, match=BUSY), making(tmp_path / name, "last", ("first",), **refusals()):
                pass
        assert os.listdir(tmp_path / name) == ["last"]
    assert sorted(os.listdir(tmp_path)) == ["empty", "new"]


def test_what_a_kill_left_half_moved_is_taken_away(tmp_path: Path) -> None:
    (tmp_path / ".part").mkdir()
    for half in ("first", ".part/last"):
        (tmp_path / half).write_text("killed")
    with making(tmp_path, "last", ("first",), **refusals()) as folder:
        assert os.listdir(folder) == [".writing"]
        assert sorted(os.listdir(tmp_path)) == [".part"]
        (folder / "last").touch()
    assert os.listdir(tmp_path) == ["last"]
    (tmp_path / "of the user").touch()
    with pytest.raises(MetarepError, match="there is one"), making(tmp_path, "last", ("first",), **refusals()):
        pass
    (tmp_path / "last").unlink()
    (tmp_path / ".part").mkdir()
    with pytest.raises(MetarepError, match="there is one"), making(tmp_path, "last", ("first",), **refusals()):
        pass
    assert (tmp_path / "of the user").exists()


def test_a_file_replaced_while_it_is_read_is_read_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors opens the file by name twice: for the header and for the tensors."""
    path, from_file = tmp_path / "a.safetensors", torch.UntypedStorage.from_file
    write_tensors(path, {"a": torch.zeros(9)}, {"state": 0})

    def replaced(*args: Any, **more: Any) -> Any:
        write_tensors(path, {"a": torch.ones(9)}, {"state": 1})
        return from_file(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(torch.UntypedStorage, "from_file", replaced)
        tensors, header = read_tensors(path)
    assert (header["state"], tensors["a"].tolist()) == (0, [0.0] * 9)
    assert read_tensors(path)[1]["state"] == 1


def test_a_file_is_flushed_before_it_has_its_name_and_its_folder_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flush, calls = tmp_path / "a.txt", os.fsync, list[tuple[bool, bool]]()

    def flushed(handle: int) -> None:
        calls.append((stat.S_ISDIR(os.fstat(handle).st_mode), path.exists()))
        flush(handle)

    monkeypatch.setattr(os, "fsync", flushed)
    with replacing(path) as partial:
        partial.write_text("1")
    assert calls == [(False, False), (True, True)]
