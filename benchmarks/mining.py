"""Measure the gain of mining: trainings on glyphs with uniform sampling of classes and with ``--mine index``.

    python benchmarks/mining.py [--seeds 5] [--method siamese] [--threads N] [--out results/timings/mining.json]

20-way 1-shot, the same 2,000 tasks for all, on the 63 test classes, and on the 99 validation classes, by which one
would choose. Encoders have 32 channels, for time; settings are otherwise the methods' own. Intervals are of the mean
over seeds (Student's t); ``gain`` is the mean of the differences within a seed, on the test classes. Weights, and
batches until the first refresh, are the same with and without.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
from pathlib import Path

import torch

from metarep.data.datasets import load_dataset
from metarep.experiments.job import Job
from metarep.experiments.measurement.measure import Setting, measure
from metarep.experiments.start import start
from metarep.machine.device import hardware

SHARED = {"validate_every": 200, "validation_tasks": 200, "steps": 250, "mine_every": 50}
LABELLED = {**SHARED, "ways": 40, "shots": 4}
PLANS: dict[str, tuple[str, dict[str, object], dict[str, object]]] = {
    "triplet": ("triplet", {}, LABELLED),
    "siamese": ("siamese", {}, LABELLED),
    "siamese, all negatives": ("siamese", {"negatives": "all"}, LABELLED),
    "siamese, active negatives": ("siamese", {"negatives": "active"}, LABELLED),
    "protonet": ("protonet", {}, {**SHARED, "ways": 30, "queries": 4}),
}
WAYS_OF_MINING = {"batch": {"mine": "batch"}, "index": {"mine": "index"}}
T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}  # 97.5 %, by seeds


def half_width(values: list[float]) -> float:
    """Half the width of the 95 % interval of the mean."""
    return T[len(values)] * statistics.stdev(values) / math.sqrt(len(values))


def run(name: str, mining: dict[str, object], seed: int) -> tuple[float, float, float]:
    """Accuracy on validation and on test classes in percent, and seconds of training."""
    method, settings, train = PLANS[name]
    job = Job(method, settings, {**train, **mining, "seed": seed}, encoder={"name": "conv4", "width": 32})
    with tempfile.TemporaryDirectory() as folder:
        trained, outcome = start(job, Path(folder) / "run")
    asked = Setting(range(20, 21), range(1, 2))
    validation, test = (
        measure(trained.learner, load_dataset("glyphs", part), asked).accuracy for part in ("val", "test")
    )
    return validation, test, outcome.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seeds", type=int, default=5, choices=sorted(T), metavar="N", help="trainings of each kind (default: 5)"
    )
    parser.add_argument("--method", action="append", choices=PLANS, help="only this one")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="also write the rows and the hardware to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows: list[dict[str, object]] = []
    for method in args.method or PLANS:
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in WAYS_OF_MINING}
        for seed in range(args.seeds):
            for name, values in found.items():
                values.append(run(method, WAYS_OF_MINING[name], seed))
                print(f"{method} {name} seed {seed}: {values[-1]}", file=sys.stderr, flush=True)
        for name, values in found.items():
            validation, test, seconds = zip(*values, strict=True)
            gains = [there - here[1] for there, here in zip(test, found["batch"], strict=True)]
            gain = f"{statistics.mean(gains):+.2f} ± {half_width(gains):.2f}" if name != "batch" else ""
            rows.append(
                {
                    "method": method,
                    "mine": name,
                    "seeds": args.seeds,
                    "validation": f"{statistics.mean(validation):.2f} ± {half_width(validation):.2f}",
                    "test": f"{statistics.mean(test):.2f} ± {half_width(test):.2f}",
                    "gain": gain,
                    "seconds": round(statistics.median(seconds)),
                }
            )
            print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        known = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
        done = {row["method"] for row in rows}
        rows = [row for row in known if row["method"] not in done] + rows  # of other methods, measured before
        note = (
            "20-way 1-shot accuracy in percent on classes of glyphs that were not trained on, 2,000 tasks, the "
            "interval over seeds; gain is within a seed, on test; seconds are the median of a training, beside other "
            "work"
        )
        args.out.write_text(json.dumps({"hardware": hardware(), "note": note, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
