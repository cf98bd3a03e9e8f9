"""Maps: where images of a few classes lie in a representation, flattened to a plane."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from metarep.datasets.split import Split
from metarep.learners import Learner
from metarep.quickstart.pictures import data_uri
from metarep.quickstart.plan import Plan

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
        if getattr(learner, "metric", "euclidean") == "cosine":
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


def flatten(rows: Float[Tensor, "n dim"]) -> tuple[Float[Tensor, "n 2"], float]:
    """The two principal components of ``rows``, fitted into the unit square, and their share of the variance.

    The sign of a component is arbitrary; here its largest weight is positive, so that one run draws one map.

    >>> places, share = flatten(torch.tensor([[0.0, 0.0, 5.0], [1.0, 0.0, 5.0], [2.0, 1.0, 5.0]]))
    >>> places.min().item(), places.max().item(), round(share, 3)
    (0.0, 1.0, 1.0)
    """
    centred = rows.double() - rows.double().mean(0)
    _, values, directions = torch.linalg.svd(centred, full_matrices=False)
    top = directions[:2]
    top = top * top.gather(1, top.abs().argmax(1, keepdim=True)).sign()
    flat = centred @ top.T
    flat = functional.pad(flat, (0, 2 - flat.shape[1]))
    low, spread = flat.amin(0), (flat.amax(0) - flat.amin(0)).max().clamp_min(1e-12)
    middle = (1 - (flat.amax(0) - low) / spread) / 2
    share = values[:2].square().sum() / values.square().sum().clamp_min(1e-12)
    return ((flat - low) / spread + middle).float(), share.item()
