"""Fitting: low-rank updates of an encoder learn to tell the classes of a few images apart."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor, nn
from torch.nn import functional

from metarep.data.augment import preset
from metarep.encoders.halves import Halves
from metarep.encoders.low_rank import add_low_rank, merge_low_rank
from metarep.model.tuning.budget import MOST, batch_for
from metarep.model.tuning.clock import Clock

RANK, STEPS, RATE, TEMPERATURE, SMOOTHING = 8, 15, 3e-3, 0.1, 0.1  # chosen on classes that no table measures
VIEWS = 6  # augmented views of an image, beside the image itself
MOST_MAPS, MOST_NUMBERS = 7000, 1 << 28  # views that are kept in memory at a time, and the numbers in them
AT_ONCE = 32  # images whose features are computed at a time


@dataclass(frozen=True)
class Prepared:
    """Everything that a tuning needs of the images, computed once.

    Args:
        halves: the layers of the frozen encoder.
        plain: the maps from which each image is classified: of the image, and of its mirror image where it is used.
        views: the maps that are trained on, of the image and of its augmented views, shape ``(views, n, *map)``.
        batch: images of a step.
    """

    halves: Halves
    plain: list[Float[Tensor, "n *map"]]
    views: Float[Tensor, "views n *map"]
    batch: int = MOST

    def rows(self, tail: nn.Module) -> Float[Tensor, "n dim"]:
        """The features of the images under this tail."""
        with torch.no_grad():
            sides = [torch.cat([tail(part) for part in maps.split(AT_ONCE)]) for maps in self.plain]
        return torch.stack(sides).mean(0)

    def some(self, number: int) -> "Prepared":
        """The same of the first images alone, without mirror images."""
        return Prepared(self.halves, [self.plain[0][:number]], self.views[:, :number], self.batch)

    @property
    def more_views(self) -> int:
        """The number of augmented views of each image, of which so many are kept as memory allows."""
        maps = self.plain[0]
        return max(1, min(VIEWS, min(MOST_MAPS // len(maps), MOST_NUMBERS // maps.numel()) - 1))


def steps_of(rows: int) -> int:
    """The number of steps of a tuning on so many images."""
    return STEPS * min(4, math.ceil(rows / MOST))


def prepare(halves: Halves, images: UInt8[Tensor, "n c h w"], clock: Clock, steps: int = 0) -> Prepared:
    """Runs the trunk of an encoder on images; :func:`add_views` is still to follow.

    Args:
        halves: of an encoder in evaluation mode, which is not changed.
        images: at the encoder's size.
        clock: counts each run as a view.
        steps: number of steps that are to follow, by which the batches are chosen; 0 for none.
    """
    plain = halves.plain(images)
    clock.finished("view", len(plain))
    return Prepared(halves, plain, plain[0].unsqueeze(0), batch_for(halves, plain[0], steps) if steps else MOST)


def add_views(prepared: Prepared, images: UInt8[Tensor, "n c h w"], clock: Clock) -> Prepared:
    """Runs the trunk on augmented views of the images too.

    Args:
        prepared: what :func:`prepare` returned for the images.
        images: at the encoder's size.
        clock: counts the views.
    """
    halves, generator = prepared.halves, Generator().manual_seed(0)
    random = preset("drawings" if halves.encoder.preprocess.invert else "photos")
    assert random is not None
    views = [prepared.plain[0]]
    for _ in range(prepared.more_views):
        draws = random.draw(len(images), generator, images.shape[-1] / images.shape[-2])
        views.append(halves.maps(random.apply(images, draws)))
        clock.finished("view")
    return replace(prepared, views=torch.stack(views))


def expect_times(prepared: Prepared, classes: Int[Tensor, " n"], ways: int, clock: Clock) -> None:
    """Tells a clock how long steps and passes will take, from a step on some of the images, which is taken twice.

    The first one is not measured, because memory is taken and kernels are chosen in it.

    Args:
        prepared: all images.
        classes: their class indices.
        ways: number of classes.
        clock: for these images.
    """
    some = min(prepared.batch, len(classes))
    few, trial = prepared.some(some), Clock()
    for _ in range(2):
        trial = Clock()
        rows = few.rows(few.halves.tail)
        trial.finished("pass")
        fit_tail(few, rows, classes[:some], ways, torch.arange(some), trial, steps=1)
    whole = len(classes) / some * len(prepared.plain)
    clock.expect(**{"step": trial.seconds("step") or 0.0, "pass": whole * (trial.seconds("pass") or 0.0)})
    clock.passed()


def train_tail(
    prepared: Prepared,
    rows: Int[Tensor, " m"],
    steps: int,
    loss_of: Callable[[nn.Module, Int[Tensor, " b"], Generator], Float[Tensor, ""]],
    others: Sequence[nn.Parameter],
    clock: Clock,
) -> nn.Module:
    """Trains low-rank updates of the tail by any loss, and merges them into a copy of the tail.

    The optimiser is Adam, whose rate falls along a cosine to zero. Norm layers keep their running statistics.

    Args:
        prepared: all images.
        rows: the images to learn from. A step takes a batch of them, and all are taken before one is taken again.
        steps: number of steps.
        loss_of: the loss of a tail on a batch, which is given as positions of images. It draws with the generator.
        others: parameters that are trained too, such as those of a classifier.
        clock: counts the steps.
    """
    tail = copy.deepcopy(prepared.halves.tail).eval().requires_grad_(False)
    weights: Sequence[nn.Parameter] = add_low_rank(tail, RANK, share=prepared.halves.share)
    optimizer, generator = torch.optim.Adam([*weights, *others], lr=RATE), Generator().manual_seed(0)
    queue, batch = torch.zeros(0, dtype=torch.long), min(prepared.batch, len(rows))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 + math.cos(math.pi * step / steps)) / 2
        if len(queue) < batch:
            queue = torch.randperm(len(rows), generator=generator)
        part, queue = queue[:batch], queue[batch:]
        optimizer.zero_grad()
        with torch.enable_grad():
            loss_of(tail, rows[part], generator).backward()
        optimizer.step()
        clock.finished("step")
    merge_low_rank(tail)
    kind = prepared.halves.encoder.kind or torch.float32
    return tail if kind == torch.float32 else tail.to(kind).float()  # as the encoder will hold it


def fit_tail(
    prepared: Prepared,
    frozen: Float[Tensor, "n dim"],
    classes: Int[Tensor, " n"],
    ways: int,
    rows: Int[Tensor, " m"],
    clock: Clock,
    *,
    steps: int | None = None,
) -> nn.Module:
    """Trains low-rank updates of the tail as a cosine classifier, and merges them into a copy of the tail.

    The classifier is that of the method ``baseline`` (Baseline++, Chen et al. 2019): the cosine of the features with a
    weight of each class, which starts at the mean of the class. It is thrown away.

    Args:
        prepared: all images.
        frozen: their features under the tail before it is trained.
        classes: their class indices.
        ways: number of classes.
        rows: the images to learn from; each class should have one.
        clock: counts the steps.
        steps: number of steps; by default :func:`steps_of` the images.
    """
    labels, features = classes[rows], functional.normalize(frozen[rows], dim=-1)
    means = features.new_zeros(ways, features.shape[1]).index_add(0, labels, features)
    heads = nn.Parameter(functional.normalize(means, dim=-1))

    def loss_of(tail: nn.Module, batch: Tensor, generator: Generator) -> Tensor:
        view = torch.randint(len(prepared.views), (len(batch),), generator=generator)
        found = functional.normalize(tail(prepared.views[view, batch]), dim=-1)
        logits = found @ functional.normalize(heads, dim=-1).mT / TEMPERATURE
        return functional.cross_entropy(logits, classes[batch], label_smoothing=SMOOTHING)

    return train_tail(prepared, rows, steps or steps_of(len(rows)), loss_of, [heads], clock)
