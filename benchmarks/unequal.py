"""Measure models whose classes have different numbers of images: what is promised, and what class means gain.

    python benchmarks/unequal.py promise --cache FILE [--draws 40] [--only DATA]
    python benchmarks/unequal.py means --cache FILE [--draws 40] [--only DATA]

The file of features is that of ``benchmarks/trust.py features``. Rows go into ``results/trust.json``. Those of
``unequal-before`` are of the code of 1c470b2, measured in the same way.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor
from trust import DATA, Draw, Features, fitted, half, keep, mean, of_features, promised, read

from metarep.learners import Prototypes
from metarep.model.model import Model

UNEQUAL = (  # images: classes
    *({1: 1, 20: 1}, {1: 1, 20: 2}, {1: 10, 20: 10}, {1: 9, 30: 1}, {1: 3, 5: 9}),
    *({2: 6, 10: 6}, {2: 5, 5: 5, 20: 5}, {3: 11, 20: 1}),
)


def draw_sizes(features: Features, sizes: Tensor, generator: Generator) -> Draw | None:
    """A draw whose classes have so many images each; the queries are those of the largest size."""
    whole = features.draw(len(sizes), int(sizes.max()), generator, features.known())
    if whole is None:
        return None
    kept = torch.cat([(whole.support_y == i).nonzero().flatten()[:size] for i, size in enumerate(sizes.tolist())])
    return whole._replace(support=whole.support[kept], support_y=whole.support_y[kept])


def sizes_of(shape: dict[int, int]) -> tuple[Tensor, str]:
    """The number of images of each class, and the same in words."""
    sizes = torch.tensor([images for images, classes in shape.items() for _ in range(classes)])
    return sizes, ", ".join(f"{classes} of {images}" for images, classes in shape.items())


def unequal(features: Features, data: str, base: Model, draws: int) -> Iterator[dict[str, Any]]:
    """Galleries whose classes have different numbers of images. All classes weigh the same in every figure."""
    for shape in UNEQUAL:
        sizes, words = sizes_of(shape)
        generator, rows, small = Generator().manual_seed(3), [], sizes == sizes.min()
        for _ in range(draws):
            draw = draw_sizes(features, sizes, generator)
            if draw is None:
                break
            model = fitted(base, features, draw)
            known, asked = model.trust.known, features.rows[draw.query]
            right = by_class(model.scores(asked).argmax(-1) == draw.query_y, draw.query_y, len(sizes))
            away = by_class(model.familiar(asked) < known, draw.query_y, len(sizes))
            taken = 100 * (model.familiar(features.rows[features.left_out(draw, generator)]) >= known).double().mean()
            real = right.mean().item()
            accuracy, inside, _ = promised(model.trust, real)
            rows.append(
                (accuracy, real, inside, *map(float, (right[small].mean(), away[small].mean(), away.mean(), taken)))
            )
        if rows:
            table = torch.tensor(rows, dtype=torch.float64)
            gap = table[:, 0] - table[:, 1]
            facts = {"part": "unequal", "data": data, "ways": len(sizes), "shots": words, "draws": len(rows)}
            facts |= {"promised": mean(table[:, 0]), "real": mean(table[:, 1]), "coverage": 100 * mean(table[:, 2], 4)}
            facts |= {"bias": mean(gap), "bias_ci95": half(gap)}
            for place, name in enumerate(("small_real", "small_turned_away", "turned_away", "left_out_accepted"), 3):
                if not table[:, place].isnan().any():  # no class may be left out
                    facts |= {name: mean(table[:, place]), f"{name}_ci95": half(table[:, place])}
            yield facts


def means(features: Features, data: str, base: Model, draws: int) -> Iterator[dict[str, Any]]:
    """Class means of classes of different sizes, without and with what allows for them."""
    sizes, words = sizes_of(UNEQUAL[2])
    for metric in ("euclidean", "cosine"):
        learner, generator = Prototypes(base.learner.encoder, metric).eval(), Generator().manual_seed(3)
        rows = []
        for _ in range(draws):
            draw = draw_sizes(features, sizes, generator)
            if draw is None:
                return
            shares = []
            for learner.level in (False, True):
                support, labels = features.rows[draw.support].unsqueeze(0), draw.support_y.unsqueeze(0)
                state = learner.adapt(support, labels, len(sizes))
                guess = learner.logits(state, features.rows[draw.query].unsqueeze(0))[0].argmax(-1)
                shares.append(by_class(guess == draw.query_y, draw.query_y, len(sizes)).mean().item())
            rows.append(shares)
        table = torch.tensor(rows, dtype=torch.float64)
        facts = {"part": f"means-{metric}", "data": data, "ways": len(sizes), "shots": words, "draws": draws}
        gain = table[:, 1] - table[:, 0]
        facts |= {"without": mean(table[:, 0]), "with": mean(table[:, 1]), "gain": mean(gain), "gain_ci95": half(gain)}
        yield facts


def by_class(values: Tensor, classes: Tensor, ways: int) -> Tensor:
    """The share of each class, in percent."""
    sums = torch.zeros(ways, dtype=torch.float64).index_add(0, classes, values.double())
    return 100 * sums / classes.bincount(minlength=ways)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("promise", "means"))
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--only", choices=DATA, action="append")
    parser.add_argument("--draws", type=int, default=40)
    args = parser.parse_args()
    measure, base = unequal if args.part == "promise" else means, of_features()
    for name, features in read(args.cache).items():
        if name in (args.only or DATA):
            keep(measure(features, name, base, args.draws))


if __name__ == "__main__":
    main()
