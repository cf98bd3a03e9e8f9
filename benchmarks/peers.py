"""Measure metarep beside the libraries that people use for the same work, in one table.

    python benchmarks/peers.py [--case NAME] [--turns N] [--json] [--out results/timings/peers.json]

One process, one thread, all ways in turns. ``times`` is the median over turns of a rival's time by metarep's in the
same turn, so above 1 metarep is faster; times are CPU time, and ``load`` is that of the machine when the case ended. A
rival that is not installed is left out with the reason: pip install 'metarep[rivals]'. lightly, easyfsl and learn2learn
import torchvision, so they need an environment of their own (inner_loop_worker.py has the way for learn2learn), with
pip install --no-deps torchvision==0.28.0 lightly lightly_utils easyfsl pytorch_lightning lightning_utilities
torchmetrics, and pandas and tqdm.

With ``--out`` rows of cases that were not asked for are kept.
"""

import argparse
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import peers_cases
import torch
from inner_loop_worker import define_missing_operators
from peers_cases import CASES, WHY

from metarep.machine.device import hardware, keep_freed_memory

NOTE = (
    "Medians of processor time of one thread, ways in turns in one process; times is the median of a rival's time by "
    "metarep's in the same turn; load is the machine's when the case ended"
)


def measure(name: str, turns: int) -> list[dict[str, object]]:
    """The rows of a case: metarep first, then each rival, then what was left out."""
    runs: dict[str, Callable[[], object]] = {}
    missing: dict[str, str] = {}
    for way, run in CASES[name]().items():
        try:
            run()  # the first call imports the library and makes what it needs
            runs[way] = run
        except Exception as error:
            text = str(error).splitlines()
            missing[way] = f"{type(error).__name__}: {text[0] if text else ''}"
    times: dict[str, list[float]] = {way: [] for way in runs}
    for _ in range(turns):
        for way, run in runs.items():
            before = time.process_time()
            run()
            times[way].append((time.process_time() - before) * 1e3)
    rows: list[dict[str, object]] = []
    for way, values in times.items():
        ratio = statistics.median(own / base for own, base in zip(values, times["metarep"], strict=True))
        rows.append(
            {
                "case": name,
                "implementation": way,
                "median_ms": round(statistics.median(values), 3),
                "times": round(ratio, 2),
                "turns": turns,
                "load": round(os.getloadavg()[0], 1),
            }
            | ({"why": WHY.get((name, way), "not known")} if ratio < 0.97 and not way.startswith("metarep") else {})
        )
    return rows + [{"case": name, "implementation": way, "left_out": why} for way, why in missing.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=list(CASES), help="only this one")
    parser.add_argument("--turns", type=int, default=5, help="measured calls of each way (default: 5)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, help="also write the rows and the hardware to this file")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    keep_freed_memory()
    peers_cases.KEPT.append(define_missing_operators())
    rows: list[dict[str, object]] = []
    for name in args.case or CASES:
        new = measure(name, args.turns)
        rows += new
        if not args.json:
            for row in new:
                print("  ".join(f"{key} {value}" for key, value in row.items() if value is not None), flush=True)
        if args.out:
            write(args.out, rows)
    if args.json:
        json.dump(rows, sys.stdout, indent=1)
        print()


def write(out: Path, rows: list[dict[str, object]]) -> None:
    """Write these rows, and those of other cases that the file has, in the order of the cases."""
    out.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(out.read_text())["rows"] if out.exists() else []
    done = {row["case"] for row in rows}
    every = [row for row in known if row["case"] not in done] + rows
    every.sort(key=lambda row: list(CASES).index(row["case"]))
    out.write_text(json.dumps({"hardware": hardware(), "note": NOTE, "rows": every}, indent=1) + "\n")


if __name__ == "__main__":
    main()
