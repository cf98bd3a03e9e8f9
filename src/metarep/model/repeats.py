"""Finds new images that a model has already: exact copies would confirm each other in leave-one-out."""

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

NAMED = 3  # pairs that a warning names
NEAR = 0.9999  # cosine of the features: only images at least as similar as this are compared by their pixels


class RepeatWarning(UserWarning):
    """A given picture is already in the model."""


def find_repeats(
    images: Sequence[UInt8[Tensor, "c h w"]],
    features: Float[Tensor, "n dim"],
    known: Sequence[Path],
    known_features: Float[Tensor, "m dim"],
) -> list[int | None]:
    """Finds for each new image an earlier one with the same pixels: the first of the known and then the new images.

    Args:
        images: the new images as the encoder sees them, uint8 of shape ``(c, h, w)``.
        features: the features of the new images, shape ``(n, dim)``.
        known: the files of the known images as the encoder saw them. An image without a file is not compared.
        known_features: the features of the known images, shape ``(m, dim)``.

    Returns:
        For each new image the position of the earlier one, or None. A position below ``m`` is a known image, and
        ``m + i`` is the new image ``i``.
    """
    both = functional.normalize(torch.cat([known_features, features]) if len(known) else features, dim=-1)
    alike = linked(both, NEAR).of
    new = set(alike[len(known) :].tolist())
    count = np.bincount(alike, minlength=len(both))

    def pixel_digest(position: int) -> bytes | None:
        """Returns the SHA-256 of the pixels at a position; None if the file is missing."""
        if position >= len(known):
            pixels = images[position - len(known)].permute(1, 2, 0).numpy()
        elif known[position].is_file():
            pixels = np.asarray(Image.open(known[position]))
        else:
            return None
        return sha256(pixels.tobytes()).digest()

    first: dict[tuple[int, bytes], int] = {}
    earlier: list[int | None] = []
    for position, group in enumerate(alike.tolist()):
        same = None
        if group in new and count[group] > 1 and (digest := pixel_digest(position)) is not None:
            same = first.setdefault((group, digest), position)
        if position >= len(known):
            earlier.append(same if same != position else None)
    return earlier


@dataclass(frozen=True)
class Repeat:
    """A new image that is the same picture as one of the model, or as an earlier new one.

    Args:
        row: its position among the new images.
        item: its name, mostly a path.
        same_as: the name of the earlier image.
        label: the class of the earlier image.
        same_class: whether both have the same class, so that the new image adds nothing.
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
    """Finds the new images that a model has already, or that occur twice among the new ones.

    Args:
        model: the model before they are added.
        image: returns the file of an image as the encoder saw it, for the id of the image.
        pixels: the new images as the encoder sees them, uint8 of shape ``(c, h, w)``.
        rows: the prepared row of each, shape ``(n, *row)``.
        labels: the class name of each.
        items: the name that people use for each, mostly its path.

    Returns:
        The repeats, in the order of the new images.
    """
    gallery = model.gallery
    known = [image(number) for number in gallery.ids.tolist()]
    classes = [gallery.names[index] for index in gallery.classes.tolist()] + list(labels)
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
    """Leaves out the new images whose class has the same picture already. The arguments are those of
    :func:`repeats_in`.

    Returns:
        The positions of the new images that are kept, ascending.

    Warns:
        RepeatWarning: one for the images that are left out, and one for those that another class has.
    """
    repeats = repeats_in(model, image, pixels, rows, labels, items)
    out = [each for each in repeats if each.same_class]
    left = {each.row for each in out}
    told = [
        "is there already" if each.item == each.same_as else f"is the same picture as {each.same_as}" for each in out
    ]
    pairs = [f"{each.item} {what}" for each, what in zip(out, told, strict=True)]
    tell("left out: ", "others of their class", pairs)
    torn = [
        f"{each.item} in {labels[each.row]} is the same picture as {each.same_as} in {each.label}"
        for each in repeats
        if not each.same_class
    ]
    tell("", "ones of another class", torn)
    return [row for row in range(len(items)) if row not in left]


def tell(start: str, others: str, pairs: list[str]) -> None:
    """Gives one warning of some repeats, which says how many there are and names the first.

    Args:
        start: the beginning of the warning.
        others: what they are the same pictures as, such as ``ones of another class``.
        pairs: a sentence for each; nothing is said if there is none.
    """
    if not pairs:
        return
    named = "; ".join(pairs[:NAMED]) + (f"; and {len(pairs) - NAMED:,} more" if len(pairs) > NAMED else "")
    many = f"{len(pairs):,} images are the same pictures as {others}: " if len(pairs) > 1 else ""
    warnings.warn(f"{start}{many}{named}", RepeatWarning, stacklevel=4)
