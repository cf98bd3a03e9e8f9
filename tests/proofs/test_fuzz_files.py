"""Damaged files by the thousand: each is read, or refused by an error of ours; none hangs or eats the memory."""

import io
import json
import pickle
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import guarded, mutated, spoil
from PIL import Image

pytestmark = pytest.mark.proof

SEED = 20260729


def survives(attempt: Callable[[bytes], object], seeds: list[bytes], number: int, least_refused: float = 0.1) -> None:
    """``number`` mutations of the seeds go through ``attempt``; whatever it raises is one of our errors."""
    from metarep.errors import MetarepError

    generator = np.random.default_rng(SEED)
    seen: Counter[str] = Counter()
    longest = 0
    for turn in range(number):
        content = mutated(seeds[turn % len(seeds)], generator)
        try:
            with guarded():
                attempt(content)
            seen["read"] += 1
        except MetarepError as error:
            seen["refused"] += 1
            longest = max(longest, len(str(error)))
        except BaseException as error:
            kept = Path("fuzz-failure.bin")
            kept.write_bytes(content)
            raise AssertionError(f"mutation {turn} raised {type(error).__name__}; it is kept in {kept}") from error
    assert longest < 2000, "an error is a sentence"
    assert seen["refused"] > least_refused * number, f"the mutations do not bite: {seen}"
    assert seen["read"], f"every mutation is refused: {seen}"


def picture(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    ramp = np.add.outer(np.arange(40) * 3, np.arange(56) * 2).astype(np.uint8)
    image = Image.fromarray(np.stack([ramp, ramp[::-1], ramp.T.reshape(40, 56)], axis=-1)).convert(mode)
    if options.get("save_all"):
        options["append_images"] = [image.transpose(Image.Transpose.ROTATE_180)] * 2
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def with_orientation(kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture(kind, exif=exif)


def colour_png() -> bytes:
    """16 bits a colour, which Pillow cannot write."""
    rows = b"".join(bytes([y % 5]) + bytes(range(y, y + 240)) for y in range(15))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 40, 15, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    packed = [struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def heic() -> bytes:
    file = io.BytesIO()
    heif = import_module("pillow_heif")
    heif.from_pillow(Image.open(io.BytesIO(picture("PNG")))).save(file, quality=80)
    return file.getvalue()


PICTURES = {
    "jpeg": [
        picture("JPEG"),
        picture("JPEG", progressive=True, optimize=True),
        picture("JPEG", "CMYK"),
        picture("JPEG", "L"),
        with_orientation("JPEG"),
    ],
    "png": [
        picture("PNG"),
        picture("PNG", "P"),
        picture("PNG", "RGBA"),
        picture("PNG", "LA"),
        picture("PNG", "1"),
        picture("PNG", "I;16"),
        with_orientation("PNG"),
        picture("PNG", save_all=True),
    ],
    "gif": [picture("GIF", "P"), picture("GIF", "P", save_all=True), picture("GIF", "L", transparency=3)],
    "webp": [picture("WEBP"), picture("WEBP", "RGBA", lossless=True), picture("WEBP", save_all=True)],
    "tiff": [
        picture("TIFF"),
        picture("TIFF", "1", compression="group4"),
        picture("TIFF", compression="tiff_lzw"),
        picture("TIFF", compression="jpeg"),
        picture("TIFF", "P", compression="packbits"),
        picture("TIFF", "RGBA", compression="tiff_adobe_deflate"),
        picture("TIFF", "I;16"),
        picture("TIFF", save_all=True),
    ],
    "bmp": [picture("BMP"), picture("BMP", "P"), picture("BMP", "1"), picture("BMP", "RGBA")],
    "deep": [picture("TIFF", "F"), picture("TIFF", "I"), picture("TIFF", "F", compression="tiff_lzw"), colour_png()],
    **({"heic": [heic()]} if find_spec("pillow_heif") else {}),
    **(
        {"avif": [picture("AVIF"), picture("AVIF", "RGBA")]} if "AVIF" in Image.registered_extensions().values() else {}
    ),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures(kind, tmp_path, monkeypatch):
    from metarep.data.reading.decode import decode

    monkeypatch.chdir(tmp_path)

    def attempt(content: bytes) -> None:
        whole = decode(content, size=None, channels=3, name="it")
        assert whole.ndim == 3
        assert whole.shape[0] == 3
        assert whole.dtype == np.uint8
        assert decode(content, size=(24, 20), channels=1, name="it").shape == (1, 24, 20)

    survives(attempt, PICTURES[kind], 1000)


def test_folders(tmp_path, monkeypatch):
    """Through the loader: a bad image stops it, or is left out and listed."""
    from metarep.data.datasets.options import LeftOutWarning, ManyLeftOutWarning
    from metarep.errors import MetarepError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METAREP_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(SEED)
    everything = [content for contents in PICTURES.values() for content in contents]
    skipped = 0
    for turn in range(40):
        root = tmp_path / f"photos{turn}"
        for i in range(40):
            home = root / f"class {i % 4}"
            home.mkdir(parents=True, exist_ok=True)
            content = everything[(turn + i) % len(everything)]
            name = f"{i}{('.jpg', '.png', '.gif', '.tif')[i % 3]}"
            (home / name).write_bytes(content if i < 8 else mutated(content, generator))
        with guarded(60), warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for skip_bad in (True, False):
                try:
                    from metarep import load_dataset

                    split = load_dataset(f"folder:{root}", "test", size=16, skip_bad=skip_bad)
                    assert len(split.bank) == len(split.labels.classes)
                except MetarepError:
                    assert not skip_bad
        left_out = [each.category for each in told if issubclass(each.category, LeftOutWarning)]
        skipped += len(left_out) - left_out.count(ManyLeftOutWarning)
    assert skipped > 100


PLAIN = {"data": [1, 2.5, None, True, "text", b"bytes", (1, (2,))], 3: {"deep": [{}]}}
ARRAYS = {
    "image_data": np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4, 3),
    "class_dict": {"n1": [0], "n2": [1]},
    "scalar": np.float32(0.5),
    "text": np.array(["apple", "sea"]),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
}


def test_pickles(tmp_path, monkeypatch):
    from metarep.data.datasets.pickles import read_pickle

    monkeypatch.chdir(tmp_path)
    seeds = [pickle.dumps(tree, protocol=protocol) for tree in (PLAIN, ARRAYS) for protocol in range(6)]
    survives(lambda content: read_pickle(io.BytesIO(content), "batch"), seeds, 6000)


def test_pickles_of_random_instructions(tmp_path, monkeypatch):
    """Every opcode, in an order that no pickler writes."""
    import pickletools

    from metarep.data.datasets.pickles import read_pickle

    monkeypatch.chdir(tmp_path)
    honest = pickle.dumps(ARRAYS, protocol=2)
    codes = [opcode.code.encode("latin1") for opcode in pickletools.opcodes]
    generator = np.random.default_rng(SEED)

    def attempt(content: bytes) -> None:
        inserted = bytearray(content)
        for _ in range(int(generator.integers(1, 6))):
            place = int(generator.integers(len(inserted) + 1))
            inserted[place:place] = codes[int(generator.integers(len(codes)))]
        read_pickle(io.BytesIO(bytes(inserted)), "batch")

    survives(attempt, [honest, pickle.dumps(PLAIN, protocol=5)], 4000)


def test_array_files(tmp_path, monkeypatch):
    from metarep.data.datasets.array_files import read_npz, read_pickled

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "train"
    images = ARRAYS["image_data"]
    stored, packed = io.BytesIO(), io.BytesIO()
    np.savez(stored, images=images, labels=np.array([0, 1]))
    np.savez_compressed(packed, images=images, labels=np.array(["a", "b"]))

    def attempt(content: bytes) -> None:
        path.write_bytes(content)
        read = read_pickled if content[:1] in (b"\x80", b"(") else read_npz
        found, classes = read(path)
        assert len(found) == len(classes)

    survives(attempt, [stored.getvalue(), packed.getvalue(), pickle.dumps(ARRAYS, protocol=2)], 3000)


def test_zip_archives(tmp_path, monkeypatch):
    from metarep.data.datasets.archives import open_zip, read_entry
    from metarep.data.datasets.omniglot import decode_drawing

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "images.zip"
    drawing = io.BytesIO()
    Image.fromarray(np.tile(np.arange(105, dtype=np.uint8), (105, 1))).save(drawing, "PNG")
    seeds = []
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", compression) as archive:
            for number in range(3):
                archive.writestr(f"images/Greek/character{number:02d}/0001_01.png", drawing.getvalue())
            archive.writestr("images/labels.txt", "one two three " * 20)
        seeds.append(file.getvalue())

    def attempt(content: bytes) -> None:
        path.write_bytes(content)
        with open_zip(path) as archive:
            for name in archive.namelist():
                decode_drawing(archive, name) if name.endswith(".png") else read_entry(archive, name)

    survives(attempt, seeds, 4000)


def test_tar_archives(tmp_path, monkeypatch):
    from metarep.data.datasets.cifar import _read_archive

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "cifar.tar.gz"
    seeds = []
    for mode in ("w:gz", "w"):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode=mode) as archive:
            for name in ("train", "test", "meta"):
                content = pickle.dumps(ARRAYS, protocol=2)
                entry = tarfile.TarInfo(f"cifar-100-python/{name}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        seeds.append(file.getvalue())

    def attempt(content: bytes) -> None:
        import gzip

        path.write_bytes(content if content[:2] == b"\x1f\x8b" else gzip.compress(content, 1))  # damage inside, too
        _read_archive(path)

    survives(attempt, seeds, 3000)


@pytest.fixture(scope="module")
def checkpoints(small_encoder, tmp_path_factory) -> list[bytes]:
    from metarep.methods import METHODS
    from metarep.weights.checkpoint import save_checkpoint
    from metarep.weights.record import DataRecord, RunRecord
    from metarep.weights.settings import TrainSettings

    found = []
    for name, kind in METHODS.items():
        path = tmp_path_factory.mktemp("checkpoints") / f"{name}.safetensors"
        data = DataRecord("glyphs", "train", 28)
        record = RunRecord(name, train=TrainSettings(steps=3), data=data)
        save_checkpoint(path, kind(small_encoder()), record, ["0123456789ab"])
        found.append(path.read_bytes())
    return found


def opened(path: Path) -> None:
    """A checkpoint that opens also works."""
    import torch

    import metarep

    learner = metarep.load_learner(path)
    learner.embed(torch.zeros(1, 1, 20, 20, dtype=torch.uint8))


def test_checkpoints(checkpoints, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.safetensors"

    def attempt(content: bytes) -> None:
        path.write_bytes(content)
        opened(path)

    survives(attempt, checkpoints, 2000)


def test_checkpoint_headers(checkpoints, tmp_path, monkeypatch):
    """Valid JSON with wrong values in it: sizes that would fill the memory, kinds that do not fit."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.safetensors"
    generator = np.random.default_rng(SEED)

    def attempt(content: bytes) -> None:
        length = struct.unpack("<Q", content[:8])[0]
        outer = json.loads(content[8 : 8 + length])
        header = json.loads(outer["__metadata__"]["metarep"])
        for _ in range(int(generator.integers(1, 3))):
            spoil(header, generator)
        outer["__metadata__"]["metarep"] = json.dumps(header)
        text = json.dumps(outer).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
        opened(path)

    from metarep.errors import MetarepError

    longest = 0
    for turn in range(1500):
        try:
            with guarded(30):
                attempt(checkpoints[turn % len(checkpoints)])
        except MetarepError as error:
            longest = max(longest, len(str(error)))
    assert longest < 2000, "an error is a sentence"
