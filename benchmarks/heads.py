"""What each head gains over class means by cosine, on validation classes, with paired intervals.

    python benchmarks/heads.py                    # efficientnet-lite0 on CIFAR-FS, omniglot-protonet on glyphs
    python benchmarks/heads.py --tasks 100 --only omniglot-protonet

Every image is encoded once, and all heads are measured on the same tasks: with balanced queries, and the class means
and BD-CSPN also with unbalanced ones. Shown are the accuracy in 5-way 1-shot and 5-shot tasks, and in brackets the mean
difference to class means by cosine with its 95 % interval over tasks, in points.
"""

import argparse
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from metarep import (
    BDCSPN,
    AugmentedLinear,
    AveragedPrototypes,
    Encoder,
    GradientDescent,
    Labels,
    Learner,
    Linear,
    Prototypes,
    SimpleShot,
    Split,
    draw_tasks,
    draw_unbalanced_tasks,
    keep_feature_means,
    load_dataset,
)
from metarep.weights.named import load_representation

SETTINGS = {  # encoder: its size, the data to measure on, the data it was trained on or near, images a class, queries
    "efficientnet-lite0": (160, "cifar-fs", "cifar-fs", 100, 15),
    "omniglot-protonet": (None, "glyphs", "omniglot", 36, 5),
}
HEADS: dict[str, Callable[[Encoder], Learner]] = {
    "prototypes, cosine": lambda encoder: Prototypes(encoder, "cosine"),
    "prototypes, euclidean": lambda encoder: Prototypes(encoder),
    "simpleshot": SimpleShot,
    "simpleshot, power 0.5": lambda encoder: SimpleShot(encoder, power=0.5),
    "linear": Linear,
    "descent": GradientDescent,
    "descent, cosine": lambda encoder: GradientDescent(encoder, head="cosine"),
    "augmented": AugmentedLinear,
    "augmented, average": lambda encoder: AugmentedLinear(encoder, average=True),
    "averaged, cosine": lambda encoder: AveragedPrototypes(encoder, "cosine", copies=5),
    "averaged, euclidean": lambda encoder: AveragedPrototypes(encoder, copies=5),
    "bd-cspn": BDCSPN,
    "bd-cspn, as in the paper": lambda encoder: BDCSPN(encoder, epsilon=10.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=400, help="tasks of each measurement (default: 400)")
    parser.add_argument("--only", choices=list(SETTINGS), help="this encoder alone")
    args = parser.parse_args()
    for name in [args.only] if args.only else SETTINGS:
        size, data, near, images, queries = SETTINGS[name]
        encoder = load_representation(name, size=size).encoder
        px = encoder.preprocess.size[0] if size is None else None
        keep_feature_means(encoder, load_dataset(near, "train", size=px).bank)
        measure(encoder, name, load_dataset(data, "val", size=px), images, queries, args.tasks)


@torch.no_grad()
def measure(encoder: Encoder, name: str, split: Split, images: int, queries: int, tasks: int) -> None:
    """Print a line for each head and for each way to balance queries."""
    labels = split.labels
    rows = torch.cat([labels.rows[start : start + images] for start in labels.starts])
    of_rows, views = Labels.of(labels.classes[rows].tolist()), AugmentedLinear(encoder).eval()
    prepared = torch.cat([views.prepare(split.bank.pixels(part)) for part in rows.split(64)])
    for draw in (draw_tasks, draw_unbalanced_tasks):
        shapes = {"ways": 5, "queries": queries}
        drawn = [draw(of_rows, tasks, shots=shots, **shapes, generator=Generator().manual_seed(1)) for shots in (1, 5)]
        first: list[Tensor] = []
        print(f"{name}, {split.name}, {tasks} tasks, {draw.__name__}")
        for head, make in HEADS.items():
            if draw is draw_unbalanced_tasks and not head.startswith(("prototypes, c", "bd")):
                continue
            learner = make(encoder).eval()
            own = rows_of(learner, prepared)
            right = [torch.cat([solve(learner, *part.of(own)) for part in each.chunks(25)]) for each in drawn]
            first = first or right
            cells = [shown(mine, base) for mine, base in zip(right, first, strict=True)]
            print(f"  {head:28} {cells[0]:28} {cells[1]}", flush=True)


def rows_of(learner: Learner, views: Tensor) -> Tensor:
    """The rows of a learner, from the features of each image and of its copies."""
    if isinstance(learner, AugmentedLinear):
        return views
    if isinstance(learner, AveragedPrototypes):
        return learner.mean_of(views)
    return views[:, 0].contiguous()


def solve(learner: Learner, support: Tensor, y: Tensor, query: Tensor, query_y: Tensor, ways: int) -> Tensor:
    """The accuracy on each task, in percent."""
    return 100 * (learner.logits(learner.adapt(support, y, ways), query).argmax(-1) == query_y).float().mean(-1)


def shown(accuracy: Tensor, base: Tensor) -> str:
    gain = accuracy - base
    return f"{accuracy.mean():.2f} ({gain.mean():+.2f} ± {1.96 * gain.std() / len(gain) ** 0.5:.2f})"


if __name__ == "__main__":
    main()
