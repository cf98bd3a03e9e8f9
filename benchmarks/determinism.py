"""Which methods end in other weights on another number of threads, without ``deterministic`` and with it.

    python benchmarks/determinism.py [--threads 1 2 3] [--steps 12] [--out results/timings/determinism.json]

Every method trains on glyphs from seed 0, with each number of threads. Its weights are compared, bit by bit. Goal: with
``deterministic`` they are the same for all; the exit status is 1 if they are not.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from metarep.experiments.job import Job
from metarep.experiments.start import start
from metarep.machine.device import hardware
from metarep.methods import METHODS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--out", type=Path, help="also write the results to this file")
    args = parser.parse_args()
    same: dict[str, dict[str, bool]] = {}
    for name in args.methods:
        same[name] = {}
        for deterministic in (False, True):
            first, *others = (weights(name, threads, args.steps, deterministic) for threads in args.threads)
            equal = all(torch.equal(value, other[key]) for other in others for key, value in first.items())
            same[name]["deterministic" if deterministic else "default"] = equal
        print(
            f"{name}: " + ", ".join(f"{how} {'same' if it else 'differs'}" for how, it in same[name].items()),
            flush=True,
        )
    if args.out:
        found = {"hardware": hardware(), "threads": args.threads, "steps": args.steps, "same": same}
        args.out.write_text(json.dumps(found, indent=2) + "\n")
    sys.exit(0 if all(each["deterministic"] for each in same.values()) else 1)


def weights(name: str, threads: int, steps: int, deterministic: bool) -> Mapping[str, Tensor]:
    """All weights of a method after a short training on some threads."""
    torch.set_num_threads(threads)
    short = {"steps": steps, "validation_tasks": 20, "validation_ways": 5, "deterministic": deterministic}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, _ = start(Job(name, train=short), Path(folder, "run"), device="cpu", precision="float32")
        return {key: value.clone() for key, value in checkpoint.method.state_dict().items()}


if __name__ == "__main__":
    main()
