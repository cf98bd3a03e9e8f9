"""The images and labels of any data set that can be asked for its items by number: torch's, Hugging Face's, a list."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from metarep.datasets.decode import read_picture
from metarep.datasets.depth import Depth, is_deep, notice
from metarep.errors import DataError
from metarep.labels import Labels, one_class
from metarep.pixels import channels_first

IMAGES = ("image", "img", "pixel_values", "picture", "photo", "x")  # what data sets call them
LABELS = ("label", "labels", "target", "class", "fine_label", "coarse_label", "y")

Key = str | int | None


def read_dataset(
    dataset: Any,  # noqa: ANN401 - any torch Dataset
    image: Key,
    label: Key,
    depth: Depth,
) -> tuple[UInt8[Tensor, "n c h w"], Labels]:
    """The pixels and labels of a data set, as ``ImageBank.from_dataset`` describes them."""
    if isinstance(dataset, Mapping):
        there = ", ".join(repr(key) for key in list(dataset)[:5])
        raise DataError(f"a dictionary of data sets ({there}) is no data set; give one of them")
    try:
        number = len(dataset)
    except TypeError:
        raise DataError(
            f"a {type(dataset).__name__} has no length, so its items cannot be asked for by number; give a list of them"
        ) from None
    if not number:
        raise DataError("the data set is empty")
    pictures, labels, deep, named = [], [], [], None
    for place in range(number):
        found, told, key = _pick(dataset[place], place, image, label)
        if place == 0:
            named = _names(dataset, key)
        labels.append(_called(told, place, named))
        if isinstance(found, Mapping):  # as Hugging Face gives images that are not decoded
            found = found.get("bytes") or found.get("path")
        pictures.append(found if is_deep(found) else _pixels(found, place, Depth()))
        deep += [place] if is_deep(found) else []
    if deep:
        depth = notice([(pictures[place], "") for place in deep], depth)
        for place in deep:
            pictures[place] = _pixels(pictures[place], place, depth)
    sizes = sorted({tuple(each.shape[1:]) for each in pictures})
    if len(sizes) > 1:
        raise DataError(
            f"all images must have one size; found {sizes[:4]} (height, width): resize them in the data set's transform"
        )
    channels = max(each.shape[0] for each in pictures)
    return torch.stack([each.expand(channels, -1, -1) for each in pictures]), Labels.of(labels)


def _pick(item: Any, place: int, image: Key, label: Key) -> tuple[Any, Any, Key]:  # noqa: ANN401
    """Image and label of an item, and where the label stands."""
    if isinstance(item, Mapping):
        first, second = _key(item, place, "image", image, IMAGES), _key(item, place, "label", label, LABELS)
        return item[first], item[second], second
    if not isinstance(item, Sequence) or isinstance(item, str | bytes):
        what = f"item {place} is of type {type(item).__name__}"
        raise DataError(f"{what}; an item is (image, label), or {{'image': ..., 'label': ...}}")
    first, second = 0 if image is None else image, 1 if label is None else label
    try:
        return item[first], item[second], second  # type: ignore[index] - a name is refused just below
    except (IndexError, TypeError):
        raise DataError(
            f"item {place} has {len(item)} parts, and no image={first!r} or no label={second!r} among them"
        ) from None


def _key(item: Mapping[Any, Any], place: int, what: str, told: Key, usual: Sequence[str]) -> Any:  # noqa: ANN401
    there = [told] if told is not None and told in item else [name for name in usual if name in item]
    if len(there) == 1 and (told is None or told in item):
        return there[0]
    has = ", ".join(repr(key) for key in item)
    why = f"has no {told!r}" if told is not None else f"has several {what}s" if there else f"has nothing called {what}"
    raise DataError(f"item {place} {why} (it has {has}); say which it is with {what}=NAME")


def _names(dataset: Any, key: Key) -> Callable[[Any], Any] | None:  # noqa: ANN401
    """What turns a number into the name of a class, where a data set of Hugging Face knows it."""
    features = getattr(dataset, "features", None)
    feature = features.get(key) if isinstance(features, Mapping) else None
    names = getattr(feature, "names", None)
    return None if not names else lambda number: names[number]


def _called(told: Any, place: int, named: Callable[[Any], Any] | None) -> object:  # noqa: ANN401
    label = one_class(told, f"item {place}")
    if named is None or not isinstance(label, int):
        return label
    if label < 0:
        raise DataError(f"item {place} has no class: its label is {label}; leave out the items without one")
    return named(label)


def _pixels(image: Any, place: int, depth: Depth) -> UInt8[Tensor, "c h w"]:  # noqa: ANN401
    name = f"item {place}"
    if isinstance(image, str | Path | bytes | Image.Image):
        source = Path(image) if isinstance(image, str) else image
        picture = read_picture(source, None, name, depth)
        if isinstance(image, Image.Image) and image.mode in ("LA", "La"):
            picture = picture.convert("L")
        image = np.array(picture)
    if not isinstance(image, np.ndarray | Tensor):
        raise DataError(f"{name} has an image of type {type(image).__name__}; it is a picture, an array or a tensor")
    pixels = image if isinstance(image, Tensor) else torch.from_numpy(np.array(image))
    if pixels.dtype != torch.uint8:
        if not pixels.is_floating_point() or not pixels.numel() or not 0 <= float(pixels.min()) <= pixels.max() <= 1:
            raise DataError(
                f"{name}: {pixels.dtype} pixels must be uint8, or floats from 0 to 1 (leave out Normalize)"
            )  # a comparison with NaN fails too
        pixels = (pixels * 255).round().to(torch.uint8)
    try:
        return channels_first(pixels[None])[0]
    except DataError as error:
        raise DataError(f"{name} has an image of shape {tuple(pixels.shape)}: {error}") from None
