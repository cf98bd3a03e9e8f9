"""Pictures that stand in a model twice: they would vouch for each other when one of them is left out."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional

from metarep.data.copies.near_pairs import linked

if TYPE_CHECKING:
    from metarep.model.model import Model

NEAR = 0.9999  # cosine of the features: what is not as near as this is no copy, and is not looked at


class RepeatWarning(UserWarning):
    """A picture is given that the model has already."""


def find_repeats(
    images: Sequence[UInt8[Tensor, "c h w"]],
    features: Float[Tensor, "n dim"],
    known: Sequence[Path],
    known_features: Float[Tensor, "m dim"],
) -> list[int | None]:
    """For each image the place of an earlier one with the same pixels: of the known ones first, then of these.

    Args:
        images: new ones, as the encoder sees them.
        features: theirs.
        known: files of what the encoder saw of older ones; those that are gone are not compared.
        known_features: theirs.

    Returns:
        Places below ``m`` are known images, those from ``m`` on are new ones.
    """
    both = functional.normalize(torch.cat([known_features, features]) if len(known) else features, dim=-1)
    alike = linked(both, NEAR).of
    new = set(alike[len(known) :].tolist())
    count = np.bincount(alike, minlength=len(both))

    def content(place: int) -> bytes | None:
        if place >= len(known):
            return sha256(images[place - len(known)].permute(1, 2, 0).numpy().tobytes()).digest()
        return sha256(np.asarray(Image.open(known[place])).tobytes()).digest() if known[place].is_file() else None

    first: dict[tuple[int, bytes], int] = {}
    found: list[int | None] = []
    for place, group in enumerate(alike.tolist()):
        same = None
        if group in new and count[group] > 1 and (digest := content(place)) is not None:
            same = first.setdefault((group, digest), place)
        if place >= len(known):
            found.append(same if same != place else None)
    return found


@dataclass(frozen=True)
class Repeat:
    """A new image that a model has already, or that comes twice.

    Args:
        row: which of the new ones.
        item: what it is called.
        same_as, label: what the earlier one is called, and its class.
        same_class: whether it is to be of the same class, and adds nothing.
    """

    row: int
    item: str
    same_as: str
    label: str
    same_class: bool


def repeats_in(
    model: "Model",
    image: Callable[[int], Path],
    pixels: Sequence[UInt8[Tensor, "c h w"]],
    rows: Tensor,
    labels: Sequence[str],
    items: Sequence[str],
) -> list[Repeat]:
    """Which of some new images a model has already.

    Args:
        model: as it is.
        image: from the number of an image to the file of what the encoder saw.
        pixels, rows: of the new ones, what the encoder saw and what the learner prepared.
        labels, items: of each, its class and what people call it.
    """
    gallery = model.gallery
    known = [image(number) for number in gallery.ids.tolist()]
    classes = [gallery.names[place] for place in gallery.classes.tolist()] + list(labels)
    names = [*gallery.items, *items]
    same = find_repeats(pixels, model.features_of(rows), known, model.features if len(gallery) else rows[:0])
    return [
        Repeat(row, items[row], names[other], classes[other], classes[other] == labels[row])
        for row, other in enumerate(same)
        if other is not None
    ]


def first_of_each(
    model: "Model",
    image: Callable[[int], Path],
    pixels: Sequence[UInt8[Tensor, "c h w"]],
    rows: Tensor,
    labels: Sequence[str],
    items: Sequence[str],
) -> list[int]:
    """Which of some new images stay where each class has a picture once; arguments as for :func:`repeats_in`.

    Warns:
        RepeatWarning: of each that does not stay, and of each that another class has.
    """
    kept = set(range(len(items)))
    for each in repeats_in(model, image, pixels, rows, labels, items):
        if each.same_class:
            kept.remove(each.row)
            text = f"left out: {each.item} is the same picture as {each.same_as}"
        else:
            text = f"{each.item} in {labels[each.row]} is the same picture as {each.same_as} in {each.label}"
        warnings.warn(text, RepeatWarning, stacklevel=3)
    return sorted(kept)
