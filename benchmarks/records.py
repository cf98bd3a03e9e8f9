"""Records in the manner of speed-running: how long a training needs to an accuracy on Omniglot, on two cores.

    python benchmarks/records.py [NAME ...] [--seeds 5] [--val] [--threads 2] [--log FILE] [--out FILE]

A record is a recipe with a fixed number of steps. The clock starts at the first step and stops at the last one; reading
the data set from its cache and measuring are not counted. Training is on train and validation classes, and each seed is
measured once on 2,000 test tasks, inductive. The time of a record is the median over the seeds, and the share of seeds
that reached the accuracy stands beside it. With ``--val`` a training is on the train classes and measured on the
validation classes: settings are chosen so. Every attempt, failed ones too, is added to the log.
"""

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from metarep.data.datasets import load_dataset
from metarep.experiments.job import Job
from metarep.experiments.measurement.measure import Setting, measure, pick_learner
from metarep.experiments.start import start
from metarep.machine.device import hardware
from metarep.weights.checkpoint import Checkpoint

TASKS = 2000


@dataclass(frozen=True)
class Record:
    """A goal, and the training that is to reach it.

    Args:
        goal: accuracy in percent.
        ways: classes of the 1-shot tasks that it is measured on.
        method, settings, train: of the training; see :class:`metarep.experiments.job.Job`.
        learner: what is measured on the encoder, as ``evaluate --learner`` takes it; None for the learner that was
            trained.
        start: a training that comes first, from whose encoder this one goes on; its time counts.
    """

    goal: float
    ways: int
    method: str
    settings: dict[str, Any]
    train: dict[str, Any] = field(default_factory=dict)
    learner: str | None = None
    start: "Record | None" = None


EPISODES = {"ways": 60, "shots": 1, "queries": 5, "augment": "drawings"}
COMMON = {"schedule": "one-cycle", "weight_decay": 1e-4, "lr": 3e-3}
RECORDS = {
    "98.8 % at 5-way 1-shot": Record(
        *(98.8, 5, "protonet", {"metric": "euclidean", "turns": 6}),
        COMMON | EPISODES | {"steps": 2100},
        learner="averaged",
    ),
    "maml: 95.8 % at 20-way 1-shot": Record(
        *(95.8, 20, "maml"),
        {"head": "prototype", "inner_steps": 1, "test_steps": 1, "inner_lr": 0.01, "rates": "layer"},
        COMMON | EPISODES | {"steps": 200, "lr": 3e-4, "clip": 10.0, "tasks": 1},
        start=Record(
            *(95.8, 20, "protonet", {"metric": "euclidean", "turns": 6}),
            COMMON | EPISODES | {"steps": 2400},
        ),
    ),
    "label-free: 90 % at 5-way 1-shot": Record(
        *(90.0, 5, "simclr", {"temperature": 0.07}),
        COMMON | {"steps": 600, "images": 512, "augment": "crops-drawings"},
        learner="averaged",
    ),
}


def trained(record: Record, folder: Path, seed: int, train_on: str) -> tuple[Checkpoint, float]:
    """Train what a record starts from and the record itself: the checkpoint, and the seconds of both trainings."""
    init, before = None, 0.0
    if record.start:
        init = folder / "start"
        _, before = trained(record.start, init, seed, train_on)
    settings = record.train | {"seed": seed, "validate_every": 10**6}
    data: dict[str, Any] = {"data": "omniglot:vinyals", "train_on": train_on, "size": 28}
    job = Job(record.method, record.settings, settings, init=init and str(init / "run"), **data)
    checkpoint, outcome = start(job, folder / "run")
    return checkpoint, before + outcome.seconds


def attempt(record: Record, seed: int, val: bool) -> tuple[float, float, float]:
    """The seconds of one training, and its accuracy and interval in percent."""
    train_on, measured = ("train", "val") if val else ("trainval", "test")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, seconds = trained(record, Path(folder), seed, train_on)
    split = load_dataset("omniglot:vinyals", measured)
    setting = Setting(range(record.ways, record.ways + 1), range(1, 2), tasks=TASKS)
    report = measure(pick_learner(checkpoint, record.learner).to(checkpoint.learner.device), split, setting)
    return seconds, report.accuracy, report.ci95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(RECORDS)}; default: all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--val", action="store_true", help="train on train, measure on val: to choose settings")
    parser.add_argument("--log", type=Path, help="JSON lines, one for each attempt")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="table of the records; those that are not measured now stay in it")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for name in args.names or RECORDS:
        record = RECORDS[name]
        tries = []
        for seed in range(args.seeds):
            tries.append(attempt(record, seed, args.val))
            seconds, accuracy, ci95 = tries[-1]
            print(f"{name}: seed {seed}: {accuracy:.2f} ± {ci95:.2f} % after {seconds:.0f} s", flush=True)
            if args.log:
                line = {"date": time.strftime("%Y-%m-%d"), "record": name, "seed": seed, "val": args.val}
                line |= {"seconds": round(seconds), "accuracy": round(accuracy, 2), "ci95": round(ci95, 2)}
                with args.log.open("a") as file:
                    file.write(json.dumps(line | {"hardware": hardware(), "recipe": asdict(record)}) + "\n")
        reached = sum(accuracy >= record.goal for _, accuracy, _ in tries)
        rows.append(
            {
                "record": name,
                "minutes": f"{median(seconds for seconds, _, _ in tries) / 60:.1f}",
                "reached": f"{reached} of {len(tries)} seeds",
                "median_accuracy": f"{median(accuracy for _, accuracy, _ in tries):.2f}",
                "training": ", then ".join(
                    f"{part.method}, {part.train['steps']} steps" for part in (record.start, record) if part
                ),
                "measured": record.learner or "the trained learner",
                "hardware": hardware(),
            }
        )
    if args.out:
        note = f"{TASKS:,} test tasks of 15 queries a class, inductive; the time is the median over seeds"
        kept = json.loads(args.out.read_text("utf-8"))["rows"] if args.out.exists() else []
        rows += [row for row in kept if row["record"] not in {each["record"] for each in rows}]
        rows.sort(key=lambda row: list(RECORDS).index(row["record"]))
        content = {"note": note, "rows": rows}
        args.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
