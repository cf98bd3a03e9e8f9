"""Maps: the features of images of a few classes, projected to a plane by principal components."""

from typing import NamedTuple

import torch
from torch.nn import functional

from metarep.data.split import Split
from metarep.encoders.map import flatten
from metarep.experiments.page.pictures import data_uri
from metarep.learners import Learner

IMAGES = 24  # images of each class
ON_MAP = 56  # pixels: twice the side at which a picture is shown


class ClassDots(NamedTuple):
    """One class on a map: its name, one of its images as a ``data:`` address, and the positions of all, in 0 to 1."""

    name: str
    picture: str
    dots: list[tuple[float, float]]


class ClassMap(NamedTuple):
    """The map of a learner's features. Its two principal components hold ``share`` of their variance, from 0 to 1."""

    learner: str
    share: float
    classes: list[ClassDots]


def draw_maps(learners: dict[str, Learner], split: Split, *, classes: int, seed: int) -> list[ClassMap]:
    """Draw a map for each learner, with the same images.

    Args:
        learners: the learners by name, in evaluation mode.
        split: images and labels of classes that were not trained on.
        classes: the number of classes on a map.
        seed: of the drawn classes and images.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(split.labels.names), generator=generator)[:classes].sort().values.tolist()
    rows = []
    for row in chosen:
        start, count = int(split.labels.starts[row]), int(split.labels.counts[row])
        own = split.labels.rows[start : start + count]
        rows.append(own[torch.randperm(count, generator=generator)[:IMAGES]])
    images = split.bank.pixels(torch.cat(rows))
    maps = []
    for name, learner in learners.items():
        with torch.no_grad():
            features = learner.embed(images.to(learner.device)).cpu()
        if learner.metric == "cosine":
            features = functional.normalize(features, dim=-1)
        positions, share = flatten(features)
        by_class = [part.tolist() for part in positions.split([len(part) for part in rows])]
        named = zip(chosen, rows, by_class, strict=True)
        dots = [
            ClassDots(
                split.labels.names[row], data_uri(split.bank.pixels(own[:1])[0], ON_MAP), [(x, y) for x, y in part]
            )
            for row, own, part in named
        ]
        maps.append(ClassMap(name, share, dots))
    return maps
