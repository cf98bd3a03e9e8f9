"""Measure suggest: what labelling the suggested images adds to accuracy, and labelling as many at random.

    python benchmarks/suggest.py PHOTOS [--draws 12] [--shots 1,3] [--number 10] [--threads 1] [--out FILE.json]

``PHOTOS`` holds a folder of images for each class, such as Caltech-101's. Each draw takes ten classes at random, some
images of each for a first model, 12 to measure on and up to 25 as unlabelled ones; with ``--strangers`` as many images
of other classes besides, whose labels add nothing. The model is fitted anew with the true labels of the images that are
suggested, or of as many at random (mean of five choices). Intervals are over draws, of paired differences (normal).
"""

import argparse
import json
import math
import random
import statistics
from pathlib import Path

import torch
from torch import Tensor

from metarep.data.copies.picture_hash import picture_hash
from metarep.data.reading.folder_tree import scan
from metarep.machine.device import hardware
from metarep.model.gallery import Gallery
from metarep.model.model import Model
from metarep.model.suggestions import suggest
from metarep.weights.named import load_representation

WAYS, TESTED, POOL, CHOICES = 10, 12, 25, 5


def encode(photos: str, size: int, classes: int) -> tuple[Model, Tensor, Tensor, list[str]]:
    """The model without images, and the prepared rows, hashes and labels of the images of some classes."""
    tree = scan(photos, deep=False)
    entries = [entry for entry in tree.classes if len(entry.files) >= TESTED + POOL + 3]
    entries = random.Random(0).sample(entries, min(classes, len(entries)))
    pairs = [(tree.root / file, entry.name) for entry in entries for file in entry.files[: TESTED + POOL + 3]]
    model = Model(load_representation("efficientnet-lite0", size=size))
    read = [(rows, picture_hash(pixels)) for pixels, rows in model.read([path for path, _ in pairs])]
    rows, hashes = (torch.cat(parts) for parts in zip(*read, strict=True))
    return model, rows, hashes, [label for _, label in pairs]


def draw(empty: Model, rows: Tensor, hashes: Tensor, labels: list[str], seed: int, args: argparse.Namespace) -> dict:
    """Accuracy in percent of the first model, with suggested labels, and with random labels; for one draw."""
    chance = random.Random(seed)
    names = sorted(set(labels))
    chance.shuffle(names)
    first: list[int] = []
    pool: list[int] = []
    tested: list[int] = []
    for place, name in enumerate(names[: 2 * WAYS if args.strangers else WAYS]):
        own = [row for row, label in enumerate(labels) if label == name]
        chance.shuffle(own)
        if place < WAYS:
            first += own[: args.shots]
            tested += own[args.shots : args.shots + TESTED]
        pool += own[args.shots + TESTED :][:POOL]

    def fitted(some: list[int]) -> Model:
        known = [row for row in some if labels[row] in names[:WAYS]]
        given = [labels[row] for row in known]
        return empty.changed(Gallery.empty().add(rows[known], given, list(map(str, known)), hashes[known]))

    def accuracy(model: Model) -> float:
        said = model.scores(rows[tested]).argmax(1).tolist()
        return 100 * statistics.mean(
            model.gallery.names[index] == labels[row] for index, row in zip(said, tested, strict=True)
        )

    model = fitted(first)
    chosen = [pool[each.row] for each in suggest(model, rows[pool], number=args.number, hashes=hashes[pool])]
    at_random = [accuracy(fitted(first + chance.sample(pool, args.number))) for _ in range(CHOICES)]
    strange = sum(labels[row] not in names[:WAYS] for row in chosen)
    return {
        "first": accuracy(model),
        "suggested": accuracy(fitted(first + chosen)),
        "random": statistics.mean(at_random),
        "strangers": strange,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos")
    parser.add_argument("--draws", type=int, default=12)
    parser.add_argument("--shots", default="1,3")
    parser.add_argument("--number", type=int, default=10)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--classes", type=int, default=40)
    parser.add_argument("--strangers", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    encoded = encode(args.photos, args.size, args.classes)
    result = {"hardware": hardware(), "rows": []}
    for shots in map(int, args.shots.split(",")):
        args.shots = shots
        draws = [draw(*encoded, seed, args) for seed in range(args.draws)]
        gains = [each["suggested"] - each["random"] for each in draws]
        row = {name: round(statistics.mean(each[name] for each in draws), 2) for name in draws[0]}
        half = 1.96 * statistics.stdev(gains) / math.sqrt(len(gains))
        result["rows"].append(
            {"shots": shots, **row, "gain": round(statistics.mean(gains), 2), "interval": round(half, 2)}
        )
        print(result["rows"][-1], flush=True)
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
