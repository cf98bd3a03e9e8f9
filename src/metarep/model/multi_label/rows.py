"""Rows of a model of several labels: features and hashes of images, which labels they have, and how these score."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int8
from torch import Tensor
from torch.nn import functional

from metarep.data.copies.picture_hash import picture_hash
from metarep.data.reading.depth import Depth
from metarep.data.reading.photographs import LeftOut
from metarep.errors import MetarepError
from metarep.learners.learner import Learner
from metarep.model.model import Model
from metarep.model.repeats import NEAR, tell


def encoded(
    base: Model,
    images: Any,  # noqa: ANN401 - whatever people have
    *,
    batch: int = 64,
    depth: Depth | None = None,
    skip_bad: bool = False,
) -> tuple[Float[Tensor, "n dim"], Int8[Tensor, "n length"], list[int]]:
    """Encodes images.

    Args:
        base: the model that reads and encodes them.
        images: see :func:`metarep.data.reading.photographs.read_images`.
        batch: the number of images that are encoded at a time.
        depth: black and white of images of more than 8 bits; None for that of the model.
        skip_bad: whether to leave out images that cannot be read.

    Returns:
        The features and the picture hash of each image, and its position among ``images``.

    Raises:
        DataError: an image cannot be read.
        MetarepError: none can.

    Warns:
        LeftOutWarning: with ``skip_bad``, for each image that cannot be read.
    """
    left_out = LeftOut()
    read = base.read(images, batch=batch, depth=depth, left_out=left_out if skip_bad else None)
    pairs = [(rows, picture_hash(pixels)) for pixels, rows in read]
    left_out.tell(len(images))
    if not pairs:
        raise MetarepError("no image can be read; give at least one")
    kept = [position for position in range(len(images)) if position not in left_out.errors]
    return torch.cat([rows for rows, _ in pairs]), torch.cat([own for _, own in pairs]), kept


def first_with_the_picture(rows: Float[Tensor, "n dim"], hashes: Int8[Tensor, "n length"], start: int = 0) -> list[int]:
    """Returns for each image the position of the first one that shows the same picture, which may be itself.

    Args:
        rows: the features of the images.
        hashes: the picture hash of each; all zero if its pixels are not known, and then it is compared with none.
        start: the images before this one are taken as they are; only later ones are compared.

    >>> rows, hashes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]]), torch.tensor([[3], [3], [3]]).to(torch.int8)
    >>> first_with_the_picture(rows, hashes)
    [0, 1, 0]
    """
    unit, place, first = functional.normalize(rows, dim=-1), dict[bytes, list[int]](), list[int]()
    for position, own in enumerate(hashes):
        alike = place.setdefault(own.numpy().tobytes(), []) if own.any() else []
        near = (each for each in alike if position >= start and float(unit[each] @ unit[position]) >= NEAR)
        first.append(next(near, position))
        if first[-1] == position:
            alike.append(position)
    return first


def merged(sets: list[set[str]], first: Sequence[int], items: Sequence[str]) -> list[int]:
    """Gives the labels of each picture that occurs several times to the first image of it.

    Args:
        sets: the labels of each image. Those of the first image with a picture are changed.
        first: from :func:`first_with_the_picture`.
        items: the name of each image.

    Returns:
        The positions of the images that are kept, ascending.

    Warns:
        RepeatWarning: one for the images whose picture is there with the same labels, one for those with other labels,
            and one where an image has a label and another with the same picture has none, which contradicts.
    """
    given = [frozenset(own) for own in sets]
    same, other, against = list[str](), list[str](), list[str]()
    for position, place in enumerate(first):
        if place == position:
            continue
        pair = f"{items[position]} is the same picture as {items[place]}"
        sets[place] |= sets[position]
        if given[position] == given[place]:
            same.append(pair)
        elif given[position] and given[place]:
            other.append(pair)
        else:
            with_it, without = (position, place) if given[position] else (place, position)
            against.append(
                f"{pair}, but {items[with_it]} has {'|'.join(sorted(given[with_it]))} and {items[without]} none"
            )
    tell("left out: ", "others with the same labels", same)
    tell("one image with the labels of both: ", "others with other labels", other)
    tell("contradicts, and the label is taken: ", "others, of which one has a label and one has none", against)
    return [position for position, place in enumerate(first) if place == position]


def marked(sets: Sequence[Collection[str]], names: Sequence[str]) -> Bool[Tensor, "n labels"]:
    """Returns which image has which label.

    Args:
        sets: the labels of each image.
        names: the labels of the model.

    >>> marked([{"sun"}, set(), {"sea", "sun"}], ["sea", "sun"]).int().tolist()
    [[0, 1], [0, 0], [1, 1]]
    """
    rows = [[name in own for name in names] for own in sets]
    return torch.tensor(rows).reshape(len(sets), len(names)).bool()


def label_scores(
    learner: Learner, states: Sequence[dict[str, Tensor]], rows: Float[Tensor, "m dim"]
) -> Float[Tensor, "m labels"]:
    """Returns the score of each label, shape ``(m, labels)``: the logit of "has it" minus that of "has it not".

    Args:
        learner: the learner.
        states: its state for each label, as a batch of one task of two classes.
        rows: the features of images.
    """
    logits = [learner.logits(state, rows[None])[0] for state in states]
    return torch.stack([each[:, 1] - each[:, 0] for each in logits], 1)
