"""Compare several processes with one on a million files and a million tasks: the results must have the same digits.

    python benchmarks/million.py [--files 1000000] [--tasks 1000000] [--work DIR] [--pictures DIR] [--out FILE]

The first part writes that many pictures of 16 px, each a file of its own, and builds an index of them by a small
encoder: ``metarep index build`` in one process, and by ``torchrun`` in two. The result is the digest of the file of
vectors, and that of the list of files, which has their ids and digests. The second part draws that many tasks of 100
classes of 100 images, and measures them by ``metarep evaluate`` in one process and in two, and in four shards, which
``metarep merge`` puts together. The result is the accuracy to the last digit, and a digest of all figures.

Every command has one thread in each process. Memory is that of all its processes together, without pages of files; see
``large_data.py``. The exit status is 1 if a result differs. DIR needs 5 kB for each file.
"""

import argparse
import hashlib
import json
import shutil
import struct
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from large_data import measured

SIDE, A_FOLDER, SHARDS = 16, 1000, 4
ONE = ["--threads", "1", "--json"]
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
Row = dict[str, Any]


def pictures(generator: np.random.Generator, n: int) -> np.ndarray:
    """Pictures of one class: a coarse pattern with noise, ``(n, 1, 16, 16)``."""
    pattern = generator.integers(0, 160, (1, 1, 4, 4), np.uint8).repeat(SIDE // 4, 2).repeat(SIDE // 4, 3)
    return (np.frombuffer(generator.bytes(n * SIDE * SIDE), np.uint8) >> 2).reshape(n, 1, SIDE, SIDE) + pattern


def png(pixels: np.ndarray) -> bytes:
    """A grey PNG file of ``(1, h, w)`` pixels; many times as fast as a library that can do more."""
    rows = np.concatenate([np.zeros((SIDE, 1), np.uint8), pixels[0]], axis=1).tobytes()
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows, 1)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def encoder(work: Path) -> Path:
    """A small encoder, trained for a few steps on other classes of such pictures; its folder."""
    from metarep import BankWriter
    from metarep.experiments.job import Job
    from metarep.experiments.start import start

    generator = np.random.default_rng(1)
    with BankWriter(work / "bank") as bank:
        for number in range(200):
            split = "test" if number < 100 else "val" if number < 120 else "train"
            bank.add(f"class {number:03d}", pictures(generator, 100), split=split)
    settings = {"steps": 20, "ways": 20, "validation_tasks": 20}
    start(
        Job("protonet", {}, settings, data=f"bank:{work / 'bank'}", encoder={"name": "conv4", "width": 16}),
        work / "run",
    )
    return work / "run"


def write(folder: Path, files: int) -> None:
    """Write pictures in folders of a thousand."""
    generator, began = np.random.default_rng(0), time.perf_counter()
    for number in range(-(-files // A_FOLDER)):
        (folder / f"{number:05d}").mkdir(parents=True)
        for each, pixels in enumerate(pictures(generator, min(A_FOLDER, files - number * A_FOLDER))):
            (folder / f"{number:05d}" / f"{each:03d}.png").write_bytes(png(pixels))
    print(f"{files:,} files written in {time.perf_counter() - began:.0f} s", flush=True)


def index(work: Path, folder: Path, run: Path, files: int, nice: int) -> list[Row]:
    """The first part."""
    rows = []
    for what, start in (("one process", []), ("two processes", TWO)):
        out = work / f"{what}.index"
        command = [*start, "-m", "metarep", "index", "build", str(out), str(folder), "--encoder", str(run), *ONE]
        row = measured(command, nice=nice, OMP_NUM_THREADS="1")
        held = json.loads(row["output"])["images"]
        result = f"{held:,} vectors {sha256(out / 'index.safetensors')}, files {sha256(out / 'items.jsonl')}"
        rows.append(told(f"index build of {files:,} files, {what}", result, row))
        shutil.rmtree(out)
    return rows


def sha256(path: Path) -> str:
    """The first 12 digits of the digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def evaluate(work: Path, run: Path, tasks: int, nice: int) -> list[Row]:
    """The second part."""
    command = ["-m", "metarep", "evaluate", str(run), "--tasks", str(tasks), "--no-references", *ONE]
    rows, what = [], f"evaluate on {tasks:,} tasks"
    for processes, start in (("one process", []), ("two processes", TWO)):
        row = measured([*start, *command], nice=nice, OMP_NUM_THREADS="1")
        rows.append(told(f"{what}, {processes}", figures(row["output"]), row))
    parts, shards = [work / f"part{number}.json" for number in range(1, SHARDS + 1)], []
    for number, part in enumerate(parts, 1):
        own = [*command, "--shard", f"{number}/{SHARDS}", "--out", str(part)]
        shards.append(measured(own, nice=nice, OMP_NUM_THREADS="1"))
    merged = measured(["-m", "metarep", "merge", *map(str, parts), "--json"], nice=nice, OMP_NUM_THREADS="1")
    result = figures(merged["output"])
    rows.append(told(f"{what}, {SHARDS} shards one after the other, and merge", result, *shards, merged))
    return rows


def figures(output: str) -> str:
    """All figures of a result but its time, from the JSON of a command."""
    (row,) = json.loads(output)
    row.pop("seconds")
    digest = hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:12]
    return f"{row['accuracy']!r} ± {row['ci95']!r} %, all figures {digest}"


def told(what: str, result: str, *commands: Row) -> Row:
    """The row of one or several commands."""
    totals = {name: round(sum(row[name] for row in commands), 1) for name in ("wall_s", "cpu_s")}
    row = {"command": what, "result": result, **totals, "peak_mb": max(row["peak_mb"] for row in commands)}
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path)
    parser.add_argument(
        "--pictures", type=Path, help="a folder of the pictures of an earlier run, or where to keep them"
    )
    parser.add_argument("--nice", type=int, default=0, help="priority of what is timed, if the machine does other work")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        run = encoder(Path(folder))
        rows = evaluate(Path(folder), run, args.tasks, args.nice) if args.tasks else []
        if args.files:
            made = args.pictures or Path(folder) / "pictures"
            if not made.exists():
                write(made, args.files)
            rows += index(Path(folder), made, run, args.files, args.nice)
    if args.out:
        from metarep.machine.device import environment, hardware

        note = (
            "One thread in each process; peak_mb is RssAnon + RssShmem, of all processes of the command; the two cores "
            "did other work too, so the seconds are no measure of speed"
        )
        args.out.parent.mkdir(parents=True, exist_ok=True)
        shown = {"hardware": hardware(), "packages": environment()["packages"], "note": note, "rows": rows}
        args.out.write_text(json.dumps(shown, indent=1) + "\n")
    results = {
        part: {row["result"] for row in rows if row["command"].startswith(part)} for part in ("index", "evaluate")
    }
    sys.exit("the results differ" if any(len(found) > 1 for found in results.values()) else 0)


if __name__ == "__main__":
    main()
