"""Read the images and labels of a map-style data set: one of torch or Hugging Face, or a list."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from metarep.data.labels import Labels, one_class
from metarep.data.pixels import channels_first
from metarep.data.reading.decode import read_picture
from metarep.data.reading.depth import Depth
from metarep.data.reading.depth_survey import is_deep, notice
from metarep.errors import DataError

IMAGES = ("image", "img", "pixel_values", "picture", "photo", "x")  # usual keys of the image in an item
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
        keys = ", ".join(repr(key) for key in list(dataset)[:5])
        raise DataError(f"a dictionary of data sets ({keys}) is not a data set; give one of them")
    try:
        number = len(dataset)
    except TypeError:
        raise DataError(
            f"a {type(dataset).__name__} has no length, so its items cannot be indexed by number; give a list of them"
        ) from None
    if not number:
        raise DataError("the data set is empty; give one with at least one item")
    pictures, labels, deep, name_of = [], [], [], None
    for row in range(number):
        picture, value, key = _pick(dataset[row], row, image, label)
        if row == 0:
            name_of = _names(dataset, key)
        labels.append(_class(value, row, name_of))
        if isinstance(picture, Mapping):  # Hugging Face gives images like this if they are not decoded
            picture = picture.get("bytes") or picture.get("path")
        if is_deep(picture):
            deep.append(row)
            pictures.append(picture)
        else:
            pictures.append(_pixels(picture, row, Depth()))
    if deep:
        depth = notice([(pictures[row], "") for row in deep], depth)
        for row in deep:
            pictures[row] = _pixels(pictures[row], row, depth)
    sizes = sorted({tuple(pixels.shape[1:]) for pixels in pictures})
    if len(sizes) > 1:
        raise DataError(
            f"images have the sizes {sizes[:4]} (height, width), and all must have one size; resize them in the "
            "transform of the data set"
        )
    channels = max(each.shape[0] for each in pictures)
    return torch.stack([each.expand(channels, -1, -1) for each in pictures]), Labels.of(labels)


def _pick(item: Any, row: int, image: Key, label: Key) -> tuple[Any, Any, Key]:  # noqa: ANN401
    """The image and the label of an item, and the key or position of the label."""
    if isinstance(item, Mapping):
        first, second = _key(item, row, "image", image, IMAGES), _key(item, row, "label", label, LABELS)
        return item[first], item[second], second
    if not isinstance(item, Sequence) or isinstance(item, str | bytes):
        what = f"item {row} is of type {type(item).__name__}"
        raise DataError(f"{what}; an item is (image, label), or {{'image': ..., 'label': ...}}")
    first, second = 0 if image is None else image, 1 if label is None else label
    try:
        return item[first], item[second], second  # type: ignore[index] - a name is refused just below
    except (IndexError, TypeError):
        raise DataError(
            f"item {row} is a {type(item).__name__} of length {len(item)}, and image={first!r} or label={second!r} is "
            "not a position in it; set image and label to the right positions"
        ) from None


def _key(item: Mapping[Any, Any], row: int, what: str, given: Key, usual: Sequence[str]) -> Any:  # noqa: ANN401
    """The key of the image or of the label in an item: the given one, or the only usual one.

    Args:
        item: the item.
        row: its number, for the message.
        what: ``image`` or ``label``.
        given: the key that the user set; None for one of ``usual``.
        usual: keys that data sets usually have.

    Raises:
        DataError: the item does not have the given key, or has none or several of the usual ones.
    """
    if given is not None and given in item:
        return given
    keys = [name for name in usual if name in item]
    if given is None and len(keys) == 1:
        return keys[0]
    has = ", ".join(repr(key) for key in item)
    if given is not None:
        why = f"has no {given!r}"
    elif keys:
        why = f"has several {what}s"
    else:
        why = f"has nothing called {what}"
    raise DataError(f"item {row} {why} (it has {has}); say which it is with {what}=NAME")


def _names(dataset: Any, key: Key) -> Callable[[Any], Any] | None:  # noqa: ANN401
    """The function from the number of a class to its name, if the data set is one of Hugging Face that has names."""
    features = getattr(dataset, "features", None)
    feature = features.get(key) if isinstance(features, Mapping) else None
    names = getattr(feature, "names", None)
    return None if not names else lambda number: names[number]


def _class(value: Any, row: int, name_of: Callable[[Any], Any] | None) -> object:  # noqa: ANN401
    """The class of an item: its name if the data set has names of classes, and otherwise its label."""
    label = one_class(value, f"item {row}")
    if name_of is None or not isinstance(label, int):
        return label
    if label < 0:
        raise DataError(f"item {row} has no class: its label is {label}; leave out the items without one")
    return name_of(label)


def _pixels(image: Any, row: int, depth: Depth) -> UInt8[Tensor, "c h w"]:  # noqa: ANN401
    """The pixels of an image of any of the types that ``ImageBank.from_dataset`` takes."""
    name = f"item {row}"
    if isinstance(image, str | Path | bytes | Image.Image):
        source = Path(image) if isinstance(image, str) else image
        picture = read_picture(source, None, name, depth)
        if isinstance(image, Image.Image) and image.mode in ("LA", "La"):
            picture = picture.convert("L")
        image = np.array(picture)
    if not isinstance(image, np.ndarray | Tensor):
        raise DataError(f"{name} has an image of type {type(image).__name__}; give a picture, an array or a tensor")
    pixels = image if isinstance(image, Tensor) else torch.from_numpy(np.array(image))
    if pixels.dtype != torch.uint8:
        if not pixels.is_floating_point() or not pixels.numel() or not 0 <= float(pixels.min()) <= pixels.max() <= 1:
            # A comparison with NaN is False, so NaN is refused too.
            raise DataError(f"{name}: {pixels.dtype} pixels must be uint8, or floats from 0 to 1 (leave out Normalize)")
        pixels = (pixels * 255).round().to(torch.uint8)
    try:
        return channels_first(pixels[None])[0]
    except DataError as error:
        raise DataError(f"{name} has an image of shape {tuple(pixels.shape)}: {error}") from None
