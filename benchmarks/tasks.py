"""Measure how fast tasks are drawn: 10,000 5-way 1-shot 15-query tasks on Omniglot's test classes.

    python benchmarks/tasks.py [--json] [--out results/timings/tasks.json]

Goal: under half a second on two cores. Needs no images: the test split has 1,692 classes of 20.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from metarep import Labels, draw_tasks
from metarep.machine.device import hardware


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, help="also write the rows and the hardware to this file")
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    labels = Labels.of([character for character in range(1692) for _ in range(20)])
    shapes = {"5-way 1-shot": (5, 1), "20-way 5-shot": (20, 5)}
    seconds: dict[str, list[float]] = {name: [] for name in shapes}
    busy: dict[str, list[float]] = {name: [] for name in shapes}
    for repeat in range(args.repeats):
        for name, (ways, shots) in shapes.items():
            generator = torch.Generator().manual_seed(repeat)
            started, worked = time.perf_counter(), time.process_time()
            draw_tasks(labels, 10_000, ways=ways, shots=shots, queries=15, generator=generator)
            seconds[name].append(time.perf_counter() - started)
            busy[name].append(time.process_time() - worked)
    rows = [
        {
            "case": name,
            "tasks": 10_000,
            "median_ms": round(statistics.median(times) * 1e3, 1),
            "processor_ms": round(statistics.median(busy[name]) * 1e3, 1),
        }
        for name, times in seconds.items()
    ]
    if args.out:
        note = f"Medians of {args.repeats} runs: of the clock, and of processor time over all threads"
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"hardware": hardware(), "note": note, "rows": rows}, indent=1) + "\n")
    rows = [row | {"hardware": hardware()} for row in rows]
    print(
        json.dumps(rows, indent=2) if args.json else "\n".join(f"{r['case']:<14} {r['median_ms']:.0f} ms" for r in rows)
    )


if __name__ == "__main__":
    main()
