"""Measure how long a user waits: for the import, for help, for a model of a hundred photographs, and for one answer.

    python benchmarks/first_use.py [--json] [--out results/timings/first-use.json]

Medians of the clock. ``import torch`` and ``import metarep`` are processes of their own, in turns, and so is
``metarep --help``. ``fit`` is a model of 20 classes of five JPEG files of 640 x 480 pixels, the reading of the
encoder's weights included; ``predict`` is one more file. Both run in this process, after imports, with as many threads
as it says.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from metarep import FewShotClassifier
from metarep.machine.device import hardware

CLASSES, EACH, ASKED, TURNS = 20, 5, 40, 7
PROCESSES = {
    "import torch": ["-c", "import torch"],
    "import metarep": ["-c", "import metarep"],
    "metarep --help": ["-m", "metarep", "--help"],
}


def processes() -> list[dict[str, object]]:
    taken: dict[str, list[float]] = {name: [] for name in PROCESSES}
    for _ in range(TURNS):
        for name, arguments in PROCESSES.items():
            run = [sys.executable, *arguments]
            taken[name].append(seconds(lambda run=run: subprocess.run(run, check=True, capture_output=True)))
    torch_s = taken["import torch"]
    return [
        {
            "what": name,
            "median_ms": round(1000 * statistics.median(times)),
            "of_torch": round(statistics.median(own / other for own, other in zip(times, torch_s, strict=True)), 3),
        }
        for name, times in taken.items()
    ]


def photographs(folder: Path, n: int) -> list[Path]:
    """JPEG files of smooth noise. What they show does not change the time."""
    generator = np.random.default_rng(0)
    files = []
    for i in range(n):
        coarse = Image.fromarray(generator.integers(256, size=(48, 64, 3), dtype=np.uint8))
        coarse.resize((640, 480), Image.Resampling.BICUBIC).save(folder / f"{i}.jpg", quality=90)
        files.append(folder / f"{i}.jpg")
    return files


def answers(files: list[Path], threads: int, encoder: str, size: int) -> list[dict[str, object]]:
    torch.set_num_threads(threads)
    given, queries = files[: CLASSES * EACH], files[CLASSES * EACH :]
    labels = [f"class {i % CLASSES}" for i in range(len(given))]
    FewShotClassifier(encoder=encoder, size=size).fit(given[:CLASSES], labels[:CLASSES])  # what a first call imports
    fits = []
    for _ in range(3):
        model = FewShotClassifier(encoder=encoder, size=size)
        fits.append(seconds(lambda model=model: model.fit(given, labels)))
    each = [seconds(lambda file=file: model.predict([file])) for file in queries]
    return [
        {"what": f"fit, 100 photographs, {encoder}, {size} px", "threads": threads, "median_ms": milliseconds(fits)},
        {"what": f"predict, one photograph, {encoder}, {size} px", "threads": threads, "median_ms": milliseconds(each)},
    ]


def seconds(work: Callable[[], object]) -> float:
    before = time.perf_counter()
    work()
    return time.perf_counter() - before


def milliseconds(times: list[float]) -> float:
    return round(1000 * statistics.median(times), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--encoder", default="efficientnet-lite0")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--out", type=Path, help="also write the rows and the hardware to this file")
    args = parser.parse_args()
    threads = torch.get_num_threads()
    rows = processes()
    with tempfile.TemporaryDirectory() as folder:
        files = photographs(Path(folder), CLASSES * EACH + ASKED)
        for number in dict.fromkeys((1, threads)):
            rows += answers(files, number, args.encoder, args.size)
    if args.json:
        print(json.dumps(rows, indent=1))
    for row in rows if not args.json else ():
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    if args.out:
        columns = ("what", "threads", "median_ms", "of_torch")
        rows = [{column: row.get(column) for column in columns} for row in rows]
        note = f"Medians: {TURNS} processes in turns, 3 models, {ASKED} answers"
        args.out.write_text(json.dumps({"hardware": hardware(), "note": note, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
