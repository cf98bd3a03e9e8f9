"""Files from strangers are refused in one line, in less than a second, and without filling the memory."""

import hashlib
import re
import struct
import time
from pathlib import Path
from typing import Any

import hostile
import pytest
import torch
from benchmarks import fuzz
from fuzzing import guarded
from hostile.bombs import bomb
from hostile.images import chunk, open_image, png
from hostile.tensors import retold, setting
from thinning import few
from torch import Generator

from metarep.errors import MetarepError
from metarep.index import Index, build_index
from metarep.machine.files import read_tensors, write_tensors
from metarep.weights.named import load_representation

MOST = 300 << 20  # bytes
CASES = hostile.cases()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The honest files, which open."""
    folder = hostile.honest(tmp_path_factory.mktemp("honest"))
    for file, opened in {(file, opened) for file, _, opened in CASES.values() if (folder / file).exists()}:
        opened(folder / file)
    return folder


def peak(reset: bool = False) -> int:
    """The largest resident memory of this process in bytes, since it was last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert line is not None
    return int(line[1]) << 10


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured on Linux")
@pytest.mark.parametrize("name", few(sorted(CASES, key=lambda name: list(CASES).index(name) % 8), len(CASES) // 8))
def test_a_hostile_file_is_refused(name: str, base: Path, tmp_path: Path) -> None:
    file, spoil, opened = CASES[name]
    path = hostile.copied(base, file, tmp_path)
    spoil(path)
    before, start = peak(reset=True), time.process_time()
    with pytest.raises(MetarepError) as caught, guarded(5, 2 << 30):
        opened(path)
    assert time.process_time() - start < 1
    assert peak() - before < MOST
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    assert not re.match(r".*(None|\(\)|: )$", message), "it says what is wrong"


def test_what_takes_no_memory_opens(base: Path, tmp_path: Path) -> None:
    """Images of 4,096 px are allowed, and the features are counted without a blank one; zeros after pixels are left."""
    run = hostile.copied(base, hostile.RUN, tmp_path)
    retold(run, setting("preprocess", "size", to=[4096, 4096]))
    picture = tmp_path / "x.png"
    picture.write_bytes(png(4, 4)[:33] + chunk(b"IDAT", b"\x78\x9c" + bomb(400)))
    before = peak(reset=True)
    encoder = load_representation(run).encoder
    assert encoder.dim == 8 * 256 * 256
    assert open_image(picture) is not None
    assert peak() - before < MOST


@pytest.mark.slow
@pytest.mark.parametrize("reader", fuzz.READERS)
def test_mutated_files_are_read_or_refused(reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``python benchmarks/fuzz.py`` gives each reader 100,000; one that finds no other error is no proof."""
    monkeypatch.chdir(tmp_path)
    assert fuzz.fuzz(reader, 30, seed=1) == []

    def fails(home: Path, _: Any) -> Any:
        while True:
            yield "a", b"", lambda path: [][len(path.read_bytes())]

    monkeypatch.setitem(fuzz.READERS, reader, fails)
    assert [crash.partition(":")[0] for crash in fuzz.fuzz(reader, 2)] == ["IndexError"] * 2


def test_what_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, {}, {"step": 1})
    with pytest.raises(
        MetarepError, match=r"could not be written: its header has 9,000,\d+ bytes, which is too long for 0"
    ):
        write_tensors(path, {}, {"names": "x" * 9_000_000})
    assert read_tensors(path)[1] == {"step": 1}


def test_rows_of_faiss_lists_that_lead_outside_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """faiss returns these numbers as they are, and our own C code looks them up."""
    pytest.importorskip("faiss")
    monkeypatch.setattr("metarep.index.faiss.TRAINED_AT", 100)
    index = build_index("faiss", 4, kind="ivf")
    rows = torch.randn(200, 4, generator=Generator().manual_seed(0))
    index.add(list(range(200)), rows)
    index.save(tmp_path / "x")
    assert len(Index.load(tmp_path / "x").search(rows[:1], 3)[1]) == 1
    tensors, header = read_tensors(tmp_path / "x")
    content = tensors["faiss"].numpy().tobytes()
    place = content.index(ids_of_a_list(index))
    content = content[:place] + struct.pack("<q", 1 << 40) + content[place + 8 :]
    tensors["faiss"] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    header["more"]["digest"] = hashlib.sha256(content).hexdigest()[:16]
    write_tensors(tmp_path / "x", tensors, header)
    with pytest.raises(MetarepError, match="its faiss index is damaged: a list holds a row that is not there"):
        Index.load(tmp_path / "x")


def ids_of_a_list(index: Any) -> bytes:
    """The row numbers in the longest list of a faiss index, as they are in its file."""
    lists = index.inner.invlists
    size, number = max((lists.list_size(each), each) for each in range(index.inner.nlist))
    return index.faiss.rev_swig_ptr(lists.get_ids(number), size).tobytes()
