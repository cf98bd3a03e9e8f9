"""Mutated files by the hundred thousand, through each reader: it reads them, or refuses them by an error of ours.

    python benchmarks/fuzz.py                          # 100,000 files for each of five readers: about an hour
    python benchmarks/fuzz.py --reader images --files 2000 --seed 1

A file that makes a reader raise another error, take more than ten seconds of processor time, or more than 2 GiB, is
kept in the working directory, and the exit status is 1. A line for each reader says how many were read and refused.
"""

import argparse
import io
import json
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from fuzzing import VALUES, guarded, mutated, spoil  # noqa: E402 - of tests

from metarep.errors import MetarepError  # noqa: E402

Reader = Callable[[Path], object]
Files = Iterator[tuple[str, bytes, Reader]]  # the name of a file, its content, and what reads it
MEMORY = 2 << 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", choices=READERS, action="append", help="only this one; may be repeated")
    parser.add_argument("--files", type=int, default=100_000, help="files for each reader (default: 100000)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    crashes = [fuzz(name, args.files, args.seed) for name in args.reader or READERS]
    sys.exit(1 if any(crashes) else 0)


def fuzz(name: str, number: int, seed: int = 0) -> list[str]:
    """Give mutated files to a reader. Prints a line, and returns the crashes: the error and the file that is kept."""
    files, generator = READERS[name], np.random.default_rng(seed)
    outcomes: Counter[str] = Counter()
    crashes: list[str] = []
    start = time.process_time()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as home:
        for count, (file, content, read) in enumerate(files(Path(home), generator)):
            if count == number:
                break
            path = Path(home, file)
            path.write_bytes(content)
            try:
                with guarded(10, MEMORY):
                    read(path)
                outcomes["read"] += 1
            except MetarepError as error:
                outcomes["refused"] += 1
                if len(str(error)) > 2000 or "\n" in str(error):
                    crashes.append(_keep(name, path, error))
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                crashes.append(_keep(name, path, error))
    print(
        f"{name}: {number:,} files, {outcomes['read']:,} read, {outcomes['refused']:,} refused, {len(crashes)} "
        f"crashes, {time.process_time() - start:.0f} s",
        flush=True,
    )
    for crash in crashes[:20]:
        print("  ", crash)
    return crashes


def _keep(name: str, path: Path, error: BaseException) -> str:
    kept = Path(f"fuzz-{name}-{len(list(Path().glob(f'fuzz-{name}-*')))}{path.suffix}")
    kept.write_bytes(path.read_bytes())
    return f"{type(error).__name__}: {str(error)[:200]!r} ({kept})"


def checkpoints(home: Path, generator: np.random.Generator) -> Files:
    """Files of trained learners and of encoders: their bytes are changed, or a value in their header is."""
    from metarep.encoders import Preprocess, build_encoder
    from metarep.methods import METHODS
    from metarep.weights.checkpoint import load_checkpoint, save_checkpoint
    from metarep.weights.named import load_representation
    from metarep.weights.record import DataRecord, RunRecord
    from metarep.weights.representation import Representation
    from metarep.weights.settings import TrainSettings

    def encoder() -> Any:
        return build_encoder("conv4", Preprocess((16, 16), 1, (0.5,), (0.5,)), width=4).eval()

    def read(path: Path) -> None:
        learner = load_checkpoint(path).learner
        learner.embed(torch.zeros(1, 1, 16, 16, dtype=torch.uint8))

    seeds: list[tuple[bytes, Reader]] = []
    for name, method in METHODS.items():
        record = RunRecord(name, train=TrainSettings(steps=3), data=DataRecord("glyphs", "train", 16))
        save_checkpoint(home / "seed.safetensors", method(encoder()), record, ["0123456789ab"])
        seeds.append(((home / "seed.safetensors").read_bytes(), read))
    Representation(encoder(), "conv4").save(home / "seed.safetensors")
    seeds.append(((home / "seed.safetensors").read_bytes(), load_representation))
    while True:
        for content, opened in seeds:
            yield "x.safetensors", mutated(content, generator), opened
            yield "x.safetensors", _spoiled(content, generator), opened


def _spoiled(content: bytes, generator: np.random.Generator) -> bytes:
    """A safetensors file with one to three other values in the header of metarep, or in that of safetensors."""
    length = struct.unpack("<Q", content[:8])[0]
    outer = json.loads(content[8 : 8 + length])
    header = json.loads(outer["__metadata__"]["metarep"])
    for _ in range(int(generator.integers(1, 4))):
        spoil(header if generator.random() < 0.8 else outer, generator)
    if isinstance(outer.get("__metadata__"), dict):
        outer["__metadata__"]["metarep"] = json.dumps(header)
    text = json.dumps(outer).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def settings(_: Path, generator: np.random.Generator) -> Files:
    """Recipes, with changed bytes and with values of other types; and the record of a run."""
    from metarep.cli.config import read_config
    from metarep.experiments.recipes import recipe_names
    from metarep.experiments.run_folder import read_record
    from metarep.weights.record import RunRecord

    folder = ROOT / "src/metarep/experiments/recipes"
    recipes = [(name.partition("-")[0], (folder / f"{name}.toml").read_text()) for name in recipe_names()]
    words = [
        *(json.dumps(each) for each in VALUES if each is not None),
        "inf",
        "1e400",
        "[[]]",
        "{a = 1}",
        "1979-05-27",
    ]
    record = RunRecord("protonet").as_dict()
    while True:
        for method, text in recipes:
            content = mutated(text.encode(), generator)
            yield "my.toml", content, lambda path, method=method: read_config(path, method)
            lines = text.splitlines()
            place = int(generator.integers(len(lines)))
            key = lines[place].partition("=")[0] or "steps"
            lines[place] = f"{key} = {words[int(generator.integers(len(words)))]}"
            yield "my.toml", "\n".join(lines).encode(), lambda path, method=method: read_config(path, method)
            tree = json.loads(json.dumps(record))
            spoil(tree, generator)
            yield "settings.json", json.dumps(tree).encode(), read_record


def archives(_: Path, generator: np.random.Generator) -> Files:
    """Zip and tar archives, ``.npz`` files and pickles."""
    import gzip
    import pickle
    import tarfile
    import zipfile

    from hostile import archives as doors

    tree = {"image_data": np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3), "class_dict": {"a": [0], "b": [1]}}
    npz, tar = io.BytesIO(), io.BytesIO()
    np.savez_compressed(npz, images=tree["image_data"], labels=np.array(["a", "b"]))
    pickles = [pickle.dumps(tree, protocol=protocol) for protocol in (2, 4, 5)]
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name in ("train", "test", "meta"):
            entry = tarfile.TarInfo(f"cifar-100-python/{name}")
            entry.size = len(pickles[0])
            archive.addfile(entry, io.BytesIO(pickles[0]))
    zips = []
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", compression) as archive:
            for number in range(3):
                archive.writestr(f"images/Greek/{number:02d}.png", bytes(range(200)))
        zips.append(file.getvalue())
    while True:
        for content in zips:
            yield "x.zip", mutated(content, generator), doors.open_entries
        yield "x.npz", mutated(npz.getvalue(), generator), doors.open_npz
        yield "x.tar.gz", gzip.compress(mutated(tar.getvalue(), generator), 1), doors.open_tar
        yield "x.tar.gz", mutated(gzip.compress(tar.getvalue(), 1), generator), doors.open_tar
        for content in pickles:
            yield "train", mutated(content, generator), doors.open_pickle


def images(_: Path, generator: np.random.Generator) -> Files:
    """Pictures of every kind that is read, decoded to one size."""
    from hostile.images import open_image
    from proofs.test_fuzz_files import PICTURES

    seeds = [content for contents in PICTURES.values() for content in contents]
    while True:
        for content in seeds:
            yield "x.png", mutated(content, generator), open_image


def shards(home: Path, generator: np.random.Generator) -> Files:
    """Folders of prepared images: their manifest, and the file of their pixels."""
    from hostile.banks import honest_bank, open_bank

    folder = honest_bank(home)
    seeds = {path.relative_to(home): path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    while True:
        for name, content in seeds.items():
            for path, honest in seeds.items():
                (home / path).write_bytes(honest)
            yield str(name), mutated(content, generator), lambda path: open_bank(path.parent.parent)
            if name.suffix == ".json":
                tree = json.loads(content)
                spoil(tree, generator)
                yield str(name), json.dumps(tree).encode(), lambda path: open_bank(path.parent.parent)


READERS: dict[str, Callable[[Path, np.random.Generator], Files]] = {
    "checkpoints": checkpoints,
    "settings": settings,
    "archives": archives,
    "images": images,
    "shards": shards,
}

if __name__ == "__main__":
    main()
