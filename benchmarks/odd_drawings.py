"""Show which drawings of Omniglot are answered wrongly: few of them make most of the errors.

    python benchmarks/odd_drawings.py [--tasks 20000] [--data-dir DIR]

The shipped ``omniglot-protonet`` answers 5-way 5-shot tasks of the test classes (vinyals) by class means. Printed are
the share of all errors that the worst drawings make, the error with 19 support images of each class, and the share of
errors in which a drawing is taken for the same character turned. The worst 40 go into
``docs/assets/odd-drawings.png``, each beside another drawing of its class.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

from metarep.data.datasets import load_dataset
from metarep.data.labels import Labels
from metarep.data.tasks import draw_tasks
from metarep.weights.named import load_representation

PICTURE = Path(__file__).parents[1] / "docs" / "assets" / "odd-drawings.png"
SHARES = (0.001, 0.005, 0.01, 0.02, 0.05)
ACROSS, DOWN, SCALE, GREY = 10, 4, 2, 128


def errors(rows: Tensor, labels: Labels, shots: int, queries: int, tasks: int) -> tuple[Tensor, Tensor, float]:
    """How often each drawing is asked and answered wrongly, and the share of errors with a turned character."""
    generator = Generator().manual_seed(2)
    drawn = draw_tasks(labels, tasks, ways=5, shots=shots, queries=queries, generator=generator)
    numbers: dict[str, int] = {}
    character = torch.tensor([numbers.setdefault(name.rsplit("/", 1)[0], len(numbers)) for name in labels.names])
    asked, wrong, turned = torch.zeros(len(rows)), torch.zeros(len(rows)), 0
    for some in drawn.chunks(200):
        means = rows[some.support].reshape(len(some), 5, shots, -1).mean(2)
        said = torch.cdist(rows[some.query], means).argmin(-1)
        bad = said != some.query_y
        own = character[some.classes]
        turned += int((bad & (own.gather(1, said) == own.gather(1, some.query_y))).sum())
        asked.index_add_(0, some.query.flatten(), torch.ones(some.query.numel()))
        wrong.index_add_(0, some.query.flatten(), bad.flatten().float())
    return asked, wrong, turned / float(wrong.sum())


def draw(images: Tensor, classes: Tensor, worst: Tensor) -> None:
    """Write the worst drawings, each beside another one of its class."""
    tiles = []
    for number in worst[: ACROSS * DOWN].tolist():
        same = (classes == classes[number]).nonzero().flatten()
        pair = np.hstack([images[each, 0].numpy() for each in (number, int(same[same != number][0]))])
        tiles.append(np.pad(pair, 2, constant_values=GREY))
    picture = np.vstack([np.hstack(tiles[row * ACROSS : (row + 1) * ACROSS]) for row in range(DOWN)])
    height, width = picture.shape
    Image.fromarray(picture).resize((SCALE * width, SCALE * height), Image.Resampling.NEAREST).save(PICTURE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--data-dir", type=Path)
    args = parser.parse_args()
    split = load_dataset("omniglot:vinyals", "test", data_dir=args.data_dir)
    images, encoder = split.bank.pixels(torch.arange(len(split.bank))), load_representation("omniglot-protonet").encoder
    with torch.no_grad():
        rows = torch.cat([encoder(part) for part in images.split(512)])
    asked, wrong, turned = errors(rows, split.labels, 5, 15, args.tasks)
    order = wrong.argsort(descending=True)
    gathered = wrong[order].cumsum(0) / wrong.sum()
    print(f"error {100 * wrong.sum() / asked.sum():.3f} %; {100 * (wrong == 0).float().mean():.1f} % are never wrong")
    for share in SHARES:
        count = round(share * len(rows))
        print(f"the worst {100 * share:.1f} % ({count} drawings) make {100 * gathered[count - 1]:.0f} % of the errors")
    print(f"taken for the same character turned: {100 * turned:.1f} % of the errors")
    asked, wrong, _ = errors(rows, split.labels, 19, 1, args.tasks)
    print(f"with 19 support images: error {100 * wrong.sum() / asked.sum():.3f} %")
    draw(images, split.labels.classes, order)


if __name__ == "__main__":
    main()
