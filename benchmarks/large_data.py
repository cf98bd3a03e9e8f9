"""Measure data larger than memory: memory, start and sampling of a training, and the speed of ``data prepare``.

    python benchmarks/large_data.py [--images 5000000] [--work DIR] [--photos FOLDER] [--out FILE]

The images of the first part are synthetic: 32 px RGB, in classes of 500. They are written by ``BankWriter``. A fresh
process then trains protonet on them, once with no page of them in memory and once more. The second part needs a folder
of photographs: crops of them are saved as JPEGs of 64 px, and ``metarep data prepare`` reads them, once undisturbed,
and once more with ``kill -9`` in the middle.

Memory is the peak of resident memory less the page cache: ``RssAnon + RssShmem`` of ``/proc/PID/status``, of all
processes of a command together, looked at every 50 ms. Pages of mapped files are not in it: the system takes them back
when it needs memory. The files are removed at the end. DIR needs 3 kB for each image.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

A_CLASS, SIDE, JPEG, STEPS = 500, 32, 64, 60
Row = dict[str, Any]


def write(folder: Path, images: int) -> Row:
    """Write synthetic classes: a coarse pattern each, with noise."""
    import numpy as np

    from metarep import BankWriter

    generator, started = np.random.default_rng(0), time.perf_counter()
    classes = images // A_CLASS
    with BankWriter(folder) as writer:
        for number in range(classes):
            pattern = generator.integers(0, 160, (1, 3, 4, 4), np.uint8).repeat(SIDE // 4, 2).repeat(SIDE // 4, 3)
            noise = np.frombuffer(generator.bytes(A_CLASS * 3 * SIDE * SIDE), np.uint8) >> 2
            split = "val" if number % 20 == 0 else "test" if number % 20 == 1 else "train"
            writer.add(f"class {number:05d}", noise.reshape(A_CLASS, 3, SIDE, SIDE) + pattern, split=split)
    return {"seconds": round(time.perf_counter() - started, 1)}


def train(folder: Path, began: float, out: Path) -> Row:
    """Train for some steps, and measure what is spent in drawing batches, and from the start to the first step."""
    import torch

    from metarep.experiments import start as starting
    from metarep.experiments import training
    from metarep.experiments.job import Job

    spent, words = [0.0], list[str]()
    marks, steps, draws = list[tuple[float, float]](), list[float](), list[float]()
    opened = [0.0]

    def timed(work: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
        def call(*args: Any, **given: Any) -> Any:
            started = time.perf_counter()
            result = work(*args, **given)
            spent[0] += time.perf_counter() - started
            return result

        return call

    def advance(loop: Any, advance: Callable[[Any], None] = training._Loop.advance) -> None:
        marks.append((time.time(), time.process_time()))
        started, drawing = time.perf_counter(), spent[0]
        advance(loop)
        if 1 < loop.state.step < STEPS:  # the first warms up, and the last validates
            steps.append(time.perf_counter() - started)
            draws.append(spent[0] - drawing)

    starting.load_dataset = timed(starting.load_dataset, opened)
    training.draw_batch, training.read_ahead = (timed(f, spent) for f in (training.draw_batch, training.read_ahead))
    setattr(training._Loop, "advance", advance)  # noqa: B010 - a method of the same name
    settings = {"steps": STEPS, "validate_every": STEPS, "validation_tasks": 100}
    job = Job("protonet", {}, settings, data=f"bank:{folder}")
    _, outcome = starting.start(job, out, watch=lambda record: words.append(record.get("images", "")))
    return {
        "threads": torch.get_num_threads(),
        "images": next(filter(None, words), "in memory"),
        "start_s": round(marks[0][0] - began, 1),
        "start_cpu_s": round(marks[0][1], 1),
        "data_s": round(opened[0], 2),
        "ms_a_step": round(1000 * sum(steps) / len(steps), 1),
        "sampling_percent": round(100 * sum(draws) / sum(steps), 2),
        "accuracy": round(outcome.accuracy or 0, 1),
    }


def forget_pages(folder: Path) -> None:
    """Let the system drop the pages of files from its cache."""
    for file in folder.glob("*.npy"):
        with open(file, "rb") as held:
            os.fsync(held.fileno())
            os.posix_fadvise(held.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def anonymous(session: int) -> dict[int, int]:
    """The memory of each process of a session that is no page of a file, in kB; also of their children's sessions."""
    kilobytes, known, parents = {}, {session}, dict[int, tuple[int, int]]()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent, _, own = (path / "stat").read_text().rpartition(")")[2].split()[1:4]
            parents[int(path.name)] = int(parent), int(own)
        except (OSError, ValueError):  # it has just ended
            continue
    for number, (parent, own) in sorted(parents.items()):  # torchrun gives each process a session
        if own in known or parent in known:
            known.add(number)
            try:
                lines = Path(f"/proc/{number}/status").read_text().splitlines()
            except OSError:
                continue
            kilobytes[number] = sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem")))
    return kilobytes


def measured(command: Sequence[str], stop: Callable[[], bool] | None = None, nice: int = 0, **environment: str) -> Row:
    """Run a command in a session of its own: its output, seconds, CPU seconds and peak memory.

    Args:
        command: arguments of Python.
        stop: when this is true, all processes of the command get ``kill -9``.
        nice: its priority, from -20, the highest, to 19.
        environment: further variables.
    """
    started, peak = time.perf_counter(), 0
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **environment},
    )
    if nice:
        Path(f"/proc/{process.pid}/autogroup").write_text(str(nice))  # Linux shares the CPU by session first
    output: list[str] = []
    reader = threading.Thread(target=lambda: output.append(process.stdout.read() if process.stdout else ""))
    reader.start()
    before = os.times()
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        peak = max(peak, sum(anonymous(process.pid).values()))
        if stop and stop():
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.05)
    reader.join()
    process.wait()
    after = os.times()
    if process.returncode and not stop:
        raise SystemExit(f"{' '.join(command)} failed")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    seconds = time.perf_counter() - started
    return {
        "output": output[0],
        "wall_s": round(seconds, 1),
        "cpu_s": round(cpu, 1),
        "peak_mb": round(peak / 1024),
        "nice": nice,
    }


def synthetic(work: Path, images: int, nice: int) -> list[Row]:
    """The first part: write a bank, and train on it twice."""
    folder, rows = work / "bank", []
    row = measured([__file__, "--child", "write", "--images", str(images), "--work", str(folder)])
    row.pop("output")
    size = sum(file.stat().st_size for file in folder.iterdir())
    rows.append({"what": "write", "images": images, "classes": images // A_CLASS, "gb": round(size / 1e9, 2), **row})
    for turn in ("cold", "warm"):
        if turn == "cold":
            forget_pages(folder)
        out = work / f"run-{turn}"
        command = [__file__, "--child", "train", "--work", str(folder), "--began", str(time.time()), "--run", str(out)]
        row = measured(command, nice=nice)
        result = json.loads(row.pop("output").splitlines()[-1])
        rows.append(
            {
                "what": f"train protonet, {turn}",
                **result,
                "peak_mb": row["peak_mb"],
                "wall_s": row["wall_s"],
                "nice": nice,
            }
        )
        print(rows[-1], flush=True)
    shutil.rmtree(folder)
    return rows


def make_jpegs(photos: Path, folder: Path, n: int) -> None:
    """Save crops of photographs as JPEGs of 64 px, in folders of their classes."""
    from PIL import Image

    dice, files, made = random.Random(0), sorted(photos.rglob("*.jpg")), 0
    for source in files:
        with Image.open(source) as opened:
            picture = opened.convert("RGB")
        picture.thumbnail((2 * JPEG, 2 * JPEG))
        (folder / source.parent.name).mkdir(parents=True, exist_ok=True)
        for number in range(min(n - made, -(-n // len(files)))):
            side = dice.uniform(0.55, 1) * min(picture.size)
            left, top = dice.uniform(0, picture.width - side), dice.uniform(0, picture.height - side)
            box = (left, top, left + side, top + side)
            crop = picture.resize((JPEG, JPEG), Image.Resampling.BILINEAR, box=box)
            crop.save(folder / source.parent.name / f"{source.stem}-{number}.jpg", quality=85)
            made += 1


def prepare(work: Path, photos: Path, n: int, nice: int) -> list[Row]:
    """The second part: prepare real files, and once more with a kill in the middle."""
    folder, rows = work / "jpegs", []
    make_jpegs(photos, folder, n)
    command = ["-m", "metarep", "data", "prepare", f"folder:{folder}", "--size", str(JPEG)]
    row = measured(command, nice=nice, METAREP_CACHE=str(work / "cache"))
    whole = row.pop("output")
    rate, rate_cpu = round(n / row["wall_s"]), round(n / row["cpu_s"])
    rows.append({"what": "data prepare", "files": n, **row, "images_per_s": rate, "images_per_cpu_s": rate_cpu})
    print(rows[-1], flush=True)
    row = measured(command, nice=nice, METAREP_CACHE=str(work / "cache"))
    rows.append({"what": "data prepare, prepared already", "files": n, "wall_s": row["wall_s"], "cpu_s": row["cpu_s"]})
    shutil.rmtree(work / "cache")

    def done() -> list[Path]:
        return sorted((work / "cache").glob(".*.part/*[0-9].json"))

    measured(command, lambda: len(done()) >= 5, METAREP_CACHE=str(work / "cache"))
    kept = {file: file.stat().st_mtime_ns for file in done()}
    again = dict[Path, int]()

    def look() -> bool:
        again.update({file: file.stat().st_mtime_ns for file in done() if file.exists()})
        return False

    row = measured(command, look, METAREP_CACHE=str(work / "cache"))
    same = [line for line in row["output"].splitlines() if "digest" in line]
    rows.append(
        {
            "what": "data prepare, killed and run again",
            "shards_before_the_kill": len(kept),
            "of_these_made_again": sum(again.get(file) != when for file, when in kept.items()),
            "same_result": same == [line for line in whole.splitlines() if "digest" in line],
            "wall_s": row["wall_s"],
            "cpu_s": row["cpu_s"],
        }
    )
    print(rows[-1], flush=True)
    shutil.rmtree(folder)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5_000_000)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--nice", type=int, default=0, help="priority of what is timed, if the machine does other work")
    parser.add_argument("--child", choices=["write", "train"], help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child = write(args.work, args.images) if args.child == "write" else train(args.work, args.began, args.run)
        print(json.dumps(child))
        return
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        rows = synthetic(Path(folder), args.images, args.nice) if args.images else []
        rows += prepare(Path(folder), args.photos, args.files, args.nice) if args.photos else []
    if args.out:
        from metarep.machine.device import environment, hardware

        note = (
            "peak_mb is RssAnon + RssShmem, of all processes of the command; start_s from the start of Python to the "
            "first step, start_cpu_s the CPU time of that, data_s the part that opens the data; sampling is the share "
            "of a step that the main thread spends in drawing its batch; other work ran on the machine, at a lower "
            "priority than what was timed where nice is below 0"
        )
        args.out.parent.mkdir(parents=True, exist_ok=True)
        known = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
        done = {row["what"] for row in rows}
        rows = [row for row in known if row["what"] not in done] + rows
        shown = {"hardware": hardware(), "cores": os.cpu_count(), "packages": environment()["packages"], "note": note}
        args.out.write_text(json.dumps({**shown, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
