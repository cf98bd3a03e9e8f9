"""Measure how fast views are made on one thread: by metarep, Pillow, kornia and a loop over tensors.

    python benchmarks/augment.py [--quick] [--json] [--out results/timings/augment.json]

Goals, as ratios: 10 over Pillow and 4 over kornia for the geometric presets at 28 and 32 pixels; 2 over both for the
photographic preset at 84. All run in one process, in turns, on the same images with the same settings; figures
are medians of CPU time (not of the clock: other programs on the machine then matter less), ratios those of medians.
kornia is left out, with the reason, if it is not installed: pip install 'metarep[rivals]'.
"""

import argparse
import json
import statistics
import time
import warnings
from pathlib import Path

import torch
from augment_rivals import Views, by_kornia, by_pillow, by_tensors
from torch import Generator

from metarep.data.augment import Augment, preset
from metarep.fast.c import library
from metarep.machine.device import hardware, keep_freed_memory

CASES = (
    ("drawings", 1, 28, "geometric", {"pillow": 10, "kornia": 4}),
    ("views-drawings", 1, 28, "geometric", {"pillow": 10, "kornia": 4}),
    ("photos", 3, 32, "geometric", {"pillow": 10, "kornia": 4}),
    ("views-32", 3, 32, "photographic", {}),
    ("photos", 3, 84, "geometric", {}),
    ("few-shot-84", 3, 84, "photographic", {"pillow": 2, "kornia": 2}),
)


def ours(augment: Augment) -> Views:
    generator = Generator().manual_seed(0)
    return lambda x: augment(x, generator)


def measure(augment: Augment, channels: int, side: int, n: int, seconds: float) -> tuple[dict[str, float], str]:
    """Microseconds an image of each way, and why a way is missing."""
    ways, missing = {"metarep": ours(augment), "pillow": by_pillow(augment), "tensor loop": by_tensors(augment)}, ""
    try:
        ways["kornia"] = by_kornia(augment)
    except ImportError as error:
        missing = f"kornia is left out: {error}"
    x = torch.randint(256, (n, channels, side, side), dtype=torch.uint8, generator=Generator().manual_seed(0))
    for way in ways.values():
        assert way(x).shape == x.shape
    times: dict[str, list[float]] = {name: [] for name in ways}
    started = time.perf_counter()
    while len(times["metarep"]) < 3 or time.perf_counter() - started < seconds:
        for name, way in ways.items():
            before = time.process_time()
            way(x)
            times[name].append((time.process_time() - before) / n * 1e6)
    return {name: statistics.median(values) for name, values in times.items()}, missing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, help="also write the rows and the hardware to this file")
    parser.add_argument("--quick", action="store_true", help="a second a case instead of five")
    parser.add_argument("--batch", type=int, default=512, help="images at a time: a contrastive step has hundreds")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as in training; for all ways alike
    warnings.simplefilter("ignore")  # of kornia, about torch
    rows, missing = [], ""
    for name, channels, side, kind, goals in CASES:
        augment = preset(name)
        assert augment is not None
        found, missing = measure(augment, channels, side, args.batch, 1 if args.quick else 5)
        for way, microseconds in found.items():
            ratio = microseconds / found["metarep"]
            row = {"preset": name, "kind": kind, "pixels": side, "batch": args.batch, "way": way}
            row |= {"us_per_image": round(microseconds, 2), "ratio": round(ratio, 2), "goal": goals.get(way)}
            rows.append(row | {"reached": None if way not in goals else ratio >= goals[way], "hardware": hardware()})
    if args.out:
        kept = [{key: value for key, value in row.items() if key not in ("kind", "batch", "hardware")} for row in rows]
        for row in kept:
            row["reached"] = {None: None, True: "yes", False: "no"}[row["reached"]]
        left_out = [{"implementation": "kornia", "left_out": missing}] if missing else []
        path = "sampling.c" if library() else "torch, for want of a C compiler"
        note = f"Medians of processor time, batches of {args.batch}, ways in turns; ratio to metarep's time, by {path}"
        args.out.parent.mkdir(parents=True, exist_ok=True)
        content = {"hardware": hardware(), "note": note, "rows": kept + left_out}
        args.out.write_text(json.dumps(content, indent=1) + "\n")
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        goal = "" if row["goal"] is None else f"  goal {row['goal']}: {'reached' if row['reached'] else 'NOT reached'}"
        print(f"{row['preset']:<15}{row['pixels']:>3} px  {row['way']:<12}{row['us_per_image']:>9.1f} us", end="")
        print(f"  x{row['ratio']:<7.1f}{goal}")
    if missing:
        print(missing)


if __name__ == "__main__":
    main()
