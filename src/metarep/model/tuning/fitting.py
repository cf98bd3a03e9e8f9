"""Fitting: low-rank updates of an encoder learn to tell the classes of a few images apart."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor, nn
from torch.nn import functional

from metarep.data.augment import preset
from metarep.encoders import Encoder
from metarep.encoders.halves import Halves
from metarep.encoders.low_rank import add_low_rank, merge_low_rank

RANK, STEPS, RATE, TEMPERATURE, SMOOTHING = 8, 15, 3e-3, 0.1, 0.1  # chosen on classes that no table measures
VIEWS = 6  # augmented views of an image, beside the image itself
BATCH = 128  # images of a step
MOST_MAPS = 7000  # views that are kept in memory at a time
AT_ONCE = 32  # images whose features are computed at a time


@dataclass(frozen=True)
class Prepared:
    """Everything that a tuning needs of the images, computed once.

    Args:
        halves: the layers of the frozen encoder.
        plain: the maps from which each image is classified: of the image, and of its mirror image where it is used.
        views: the maps that are trained on, of the image and of its augmented views, shape ``(views, n, *map)``.
    """

    halves: Halves
    plain: list[Float[Tensor, "n *map"]]
    views: Float[Tensor, "views n *map"]

    def rows(self, tail: nn.Module) -> Float[Tensor, "n dim"]:
        """The features of the images under this tail."""
        with torch.no_grad():
            sides = [torch.cat([tail(part) for part in maps.split(AT_ONCE)]) for maps in self.plain]
        return torch.stack(sides).mean(0)


def prepare(
    encoder: Encoder, images: UInt8[Tensor, "n c h w"], advance: Callable[[float], None] | None = None
) -> Prepared:
    """Runs the trunk of an encoder on images and on augmented views of them.

    Args:
        encoder: in evaluation mode; it is not changed.
        images: at the encoder's size.
        advance: called with the finished share, from 0 to 1.
    """
    halves, generator = Halves(encoder), Generator().manual_seed(0)
    random = preset("drawings" if encoder.preprocess.invert else "photos")
    assert random is not None
    count = max(1, min(VIEWS, MOST_MAPS // len(images) - 1))
    plain = halves.plain(images)
    total, views = len(plain) + count, [plain[0]]
    for number in range(count):
        if advance:
            advance((len(plain) + number) / total)
        draws = random.draw(len(images), generator, images.shape[-1] / images.shape[-2])
        views.append(halves.maps(random.apply(images, draws)))
    return Prepared(halves, plain, torch.stack(views))


def fit_tail(
    prepared: Prepared,
    classes: Int[Tensor, " n"],
    ways: int,
    rows: Int[Tensor, " m"],
    advance: Callable[[float], None] | None = None,
) -> nn.Module:
    """Trains low-rank updates of the tail as a cosine classifier, and merges them into a copy of the tail.

    The classifier is that of the method ``baseline`` (Baseline++, Chen et al. 2019): the cosine of the features with a
    weight of each class, which starts at the mean of the class. It is thrown away. Norm layers keep their running
    statistics.

    Args:
        prepared: all images.
        classes: their class indices.
        ways: number of classes.
        rows: the images to learn from; each class should have one.
        advance: called with the finished share, from 0 to 1.
    """
    tail = copy.deepcopy(prepared.halves.tail).eval().requires_grad_(False)
    weights: Sequence[nn.Parameter] = add_low_rank(tail, RANK)
    labels, features = classes[rows], functional.normalize(prepared.rows(tail)[rows], dim=-1)
    means = features.new_zeros(ways, features.shape[1]).index_add(0, labels, features)
    heads = nn.Parameter(functional.normalize(means, dim=-1))
    optimizer = torch.optim.Adam([*weights, heads], lr=RATE)
    generator = Generator().manual_seed(0)
    steps = STEPS * min(4, math.ceil(len(rows) / BATCH))
    queue = torch.zeros(0, dtype=torch.long)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 + math.cos(math.pi * step / steps)) / 2
        if len(queue) < min(BATCH, len(rows)):
            queue = torch.randperm(len(rows), generator=generator)
        part, queue = queue[:BATCH], queue[BATCH:]
        view = torch.randint(len(prepared.views), (len(part),), generator=generator)
        optimizer.zero_grad()
        with torch.enable_grad():
            found = functional.normalize(tail(prepared.views[view, rows[part]]), dim=-1)
            logits = found @ functional.normalize(heads, dim=-1).mT / TEMPERATURE
            loss = functional.cross_entropy(logits, labels[part], label_smoothing=SMOOTHING)
            loss.backward()
        optimizer.step()
        if advance:
            advance((step + 1) / steps)
    merge_low_rank(tail)
    return tail
