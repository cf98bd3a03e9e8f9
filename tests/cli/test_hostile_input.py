"""What the fuzz proofs once found, each as a small test: damaged files, wrong settings, a machine that has no more."""

import io
import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarep.cli import main
from metarep.data.datasets.archives import open_zip, read_entry
from metarep.data.datasets.array_files import read_npz
from metarep.encoders import Conv4, Preprocess, ResNet12
from metarep.errors import DataError, MetarepError
from metarep.experiments.measurement.measure import Setting
from metarep.experiments.reproduce import reproduce
from metarep.learners import Prototypes
from metarep.methods import METHODS
from metarep.weights.checkpoint import load_checkpoint, save_checkpoint
from metarep.weights.record import RunRecord


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_that_may_swell_are_refused(tmp_path: Path, compression: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", compression) as archive:
        archive.writestr("a.png", b"0" * 1000)
    with (
        pytest.raises(DataError, match=r"a.zip: the entry 'a.png' is not compressed by deflate"),
        open_zip(tmp_path / "a.zip") as archive,
    ):
        read_entry(archive, "a.png")


def test_a_zip_whose_names_are_damaged_gives_a_short_error(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", b"0" * 5000)
    content = bytearray(file.getvalue())
    content[26:28] = struct.pack("<H", 4000)  # the name's length: zipfile's own words then quote 4,000 bytes
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match="is damaged") as caught, open_zip(tmp_path / "a.zip") as archive:
        read_entry(archive, "a.png")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("method", [97, 14])  # of no compression at all, and lzma, which the bytes then are not
def test_an_npz_of_another_compression_is_an_error_of_ours(tmp_path: Path, method: int) -> None:
    file = io.BytesIO()
    np.savez(file, images=np.zeros((1, 4, 4, 3), np.uint8), labels=np.zeros(1, int))
    content = file.getvalue()
    for start, place in ((b"PK\x01\x02", 10), (b"PK\x03\x04", 8)):
        at = content.index(start) + place
        content = content[:at] + struct.pack("<H", method) + content[at + 2 :]
    (tmp_path / "train.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged, or is not a \.npz file with the arrays images and labels"):
        read_npz(tmp_path / "train.npz")


@pytest.mark.parametrize("part", ["width", "size", "mean", "std"])
def test_a_header_that_asks_for_too_much_is_refused_in_a_sentence(
    small_encoder: Any, tmp_path: Path, part: str
) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, METHODS["protonet"](small_encoder()), RunRecord("protonet"), [])
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    outer = json.loads(content[8 : 8 + length])
    header = json.loads(outer["__metadata__"]["metarep"])
    if part == "width":
        header["encoder"]["width"] = 1 << 20  # convolutions of 36 TB
    else:
        header["preprocess"][part] = {"size": [1 << 15, 1 << 15], "mean": ["x"], "std": [0]}[part]
    outer["__metadata__"]["metarep"] = json.dumps(header)
    text = json.dumps(outer).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    with pytest.raises(MetarepError, match=r"model.safetensors is damaged, or was written by a newer") as caught:
        load_checkpoint(path)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_comes_back_from_its_file(small_encoder: Any, tmp_path: Path, name: str) -> None:
    """It is rebuilt without memory first, which a constructor must not mind."""
    method = METHODS[name](small_encoder())
    save_checkpoint(tmp_path / "model.safetensors", method, RunRecord(name), [])
    found = load_checkpoint(tmp_path / "model.safetensors").method.state_dict()
    assert all(value.equal(found[key]) for key, value in method.state_dict().items())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (((0, 9), 1, (0.0,), (1.0,)), "size must be"),
        (((9, 9), 2, (0.0,) * 2, (1.0,) * 2), "channels must be"),
        (((9, 9), 3, (0.0,), (1.0,) * 3), "mean must be a number for each of 3 channels"),
        (((9, 9), 1, (float("nan"),), (1.0,)), "mean must be"),
        (((9, 9), 1, (0.0,), (0.0,)), "std must be"),
    ],
)
def test_preprocess_checks_itself(wrong: tuple[Any, ...], message: str) -> None:
    with pytest.raises(MetarepError, match=message):
        Preprocess(*wrong)


def test_settings_that_learn_or_measure_nothing_are_refused(small_encoder: Any, tmp_path: Path) -> None:
    encoder = small_encoder()
    for temperature in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(MetarepError, match="temperature must be a number above 0"):
            Prototypes(encoder, temperature=temperature)
    for name in ("siamese", "triplet"):
        with pytest.raises(MetarepError, match="margin must be a number above 0, not -1"):
            METHODS[name](encoder, margin=-1.0)
    with pytest.raises(MetarepError, match="turns must be at least 1, not 0"):
        METHODS["protonet"](encoder, turns=0)
    for kind in (Conv4, ResNet12):
        with pytest.raises(MetarepError, match="width must be at least 1, not 0"):
            kind(1, width=0)
    with pytest.raises(MetarepError, match="drop must be at least 0 and below 1, not 1"):
        ResNet12(1, drop=1.0)
    for fields in ({"queries": 0}, {"tasks": 1}, {"ways": range(1, 6)}):
        with pytest.raises(MetarepError, match="an accuracy needs at least"):
            Setting(**{"ways": range(5, 6), "shots": range(1, 2), **fields})
    for fields in ({"tasks": 0}, {"seeds": 0}):
        with pytest.raises(MetarepError, match="at least"):  # before the training, not after it
            reproduce("protonet-omniglot", tmp_path, tmp_path, data_dir=tmp_path, **fields)
    (tmp_path / "omniglot.csv").write_text("no table")
    with pytest.raises(MetarepError, match="is not a results table"):
        reproduce("protonet-omniglot", tmp_path, tmp_path, data_dir=tmp_path)


@pytest.mark.slow
def test_errors_of_the_machine_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").touch()

    def no_memory(*_: Any, **__: Any) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory: you tried to")

    assert main(["train", "protonet", "--out", "a-file/run", "--steps", "1"]) == 2
    assert capsys.readouterr().err == "metarep: a-file/run: Not a directory\n"
    assert main(["methods", "--threads", "2"]) == 2
    assert "there is no flag --threads" in capsys.readouterr().err
    assert main(["train", "protonet", "--threads=--"]) == 2
    assert "--threads needs a value, not --. Try: metarep train --help" in capsys.readouterr().err
    assert main(["methods", "--json"]) == 0
    assert main(["train", "protonet", "--threads", "100000"]) == 2
    assert "--threads must be at most" in capsys.readouterr().err
    monkeypatch.setattr("metarep.cli.train.start", no_memory)
    assert main(["train", "protonet"]) == 2
    assert "metarep: there is not enough memory for this" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        main(["train", "protonet", "--debug"])


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_traceback() -> None:
    """``metarep data list | head``."""
    reading, writing = os.pipe()
    os.close(reading)
    code = "import sys; from metarep.cli import main; sys.exit(main(['methods']))"
    done = subprocess.run([sys.executable, "-u", "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
