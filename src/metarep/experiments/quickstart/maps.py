"""Maps: where images of a few classes lie in a representation, flattened to a plane."""

from typing import NamedTuple

import torch
from torch.nn import functional

from metarep.data.split import Split
from metarep.encoders.map import flatten
from metarep.experiments.quickstart.pictures import data_uri
from metarep.experiments.quickstart.plan import Plan
from metarep.learners import Learner

IMAGES = 24  # a class


class ClassDots(NamedTuple):
    """One class on a map: its name, a picture, and the places of its images, in 0 to 1."""

    name: str
    picture: str
    dots: list[tuple[float, float]]


class ClassMap(NamedTuple):
    """A representation seen from its two directions of largest spread, which hold ``share`` of all spread."""

    learner: str
    share: float
    classes: list[ClassDots]


def draw_maps(learners: dict[str, Learner], split: Split, plan: Plan) -> list[ClassMap]:
    """A map for each learner, of the same images.

    Args:
        learners: by name, in evaluation mode.
        split: of classes not seen.
        plan: how many classes, and the seed that draws them.
    """
    generator = torch.Generator().manual_seed(plan.seed)
    classes = torch.randperm(len(split.labels.names), generator=generator)[: plan.map_classes].sort().values.tolist()
    rows = []
    for row in classes:
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
        places, share = flatten(features)
        each = [part.tolist() for part in places.split([len(part) for part in rows])]
        named = zip(classes, rows, each, strict=True)
        dots = [
            ClassDots(split.labels.names[row], data_uri(split.bank.pixels(own[:1])[0]), [(x, y) for x, y in part])
            for row, own, part in named
        ]
        maps.append(ClassMap(name, share, dots))
    return maps
