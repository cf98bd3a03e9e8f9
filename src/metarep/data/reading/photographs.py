"""Images as people have them, files, pictures or arrays, made ready for an encoder."""

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from metarep.data.datasets.options import warn_of_left_out
from metarep.data.images import ImageBank
from metarep.data.reading.decode import decode_all
from metarep.data.reading.depth import Depth, notice
from metarep.errors import DataError, MetarepError

STRETCH = 4 / 3  # a photograph of 4:3 is kept whole; longer ones lose their ends


@runtime_checkable
class Wanted(Protocol):
    """The size and the channels that images must have; an encoder's ``Preprocess`` says both."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        ...

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for RGB."""
        ...


class LeftOut:
    """Collects the images that cannot be read, so that the others can be used.

    Attributes:
        errors: why each cannot be read, by its place among the images; it grows while they are read.
    """

    def __init__(self) -> None:
        self.errors: dict[int, DataError] = {}

    def others(self) -> Iterator[int]:
        """Places of the images that can be read, in order; take no more of them than have been read."""
        return (place for place in count() if place not in self.errors)

    def tell(self, total: int) -> None:
        """Warn of each, once all are read; see :func:`metarep.data.datasets.options.warn_of_left_out`."""
        warn_of_left_out((self.errors[place].message for place in sorted(self.errors)), total)


def read_images(
    images: Sequence[Any] | np.ndarray | Tensor,
    preprocess: Wanted,
    *,
    batch: int = 64,
    depth: Depth | None = None,
    left_out: LeftOut | None = None,
) -> Iterator[UInt8[Tensor, "b c h w"]]:
    """Images of any kind as uint8 batches of the encoder's size, a few at a time.

    Args:
        images: paths, bytes of files, PIL pictures, or one uint8 array ``(n, h, w)``, ``(n, c, h, w)`` or
            ``(n, h, w, c)``; also a list of such arrays without ``n``, which may be of many sizes. An array is scaled
            and cut as the file of the same picture is.
        preprocess: of the encoder; only its size and channels count.
        batch: images at a time.
        depth: black and white of 16-bit, 32-bit and floating-point pictures; see :mod:`metarep.data.reading.depth`.
        left_out: takes the images that cannot be read; without it the first of them is raised.

    Raises:
        DataError: an image that cannot be read, by name; see :func:`metarep.data.reading.decode.decode`.
        MetarepError: something that is no image.
    """
    if isinstance(images, str | Path | bytes):
        raise MetarepError(f"images are a list or an array of them; put {str(images)[:80]!r} into a list")
    if batch < 1:
        raise MetarepError(f"a batch has at least one image, not {batch}")
    if isinstance(images, Tensor) or (isinstance(images, np.ndarray) and images.dtype.kind not in "OUS"):
        if images.ndim == 3 and images.shape[2] in (1, 3) and images.shape[1] > 3:
            raise MetarepError(f"an array of shape {tuple(images.shape)} is one picture; put it into a list")
        images = ImageBank.from_arrays(images).images.cpu()
        if tuple(images.shape[1:]) == (preprocess.channels, *preprocess.size):
            yield from images.split(batch)
            return
    decoded = decode_all(
        as_sources(images), size=preprocess.size, channels=preprocess.channels, stretch=STRETCH, depth=depth
    )
    some: list[np.ndarray] = []
    for place, pixels in enumerate(decoded):
        if isinstance(pixels, np.ndarray):
            some.append(pixels)
        elif left_out is None:
            raise pixels
        else:
            left_out.errors[place] = pixels
        if len(some) == batch:
            yield torch.from_numpy(np.stack(some))
            some = []
    if some:
        yield torch.from_numpy(np.stack(some))


def as_sources(images: Sequence[Any] | np.ndarray | Tensor) -> list[tuple[Path | bytes | Image.Image, str]]:
    """Images of any kind as ``decode_all`` takes them, each with its name."""
    return [_source(image, place) for place, image in enumerate(images)]


def are_features(x: object) -> bool:
    """Whether ``x`` is a table of numbers, one row an item, rather than images."""
    if isinstance(x, Sequence):
        return bool(len(x)) and isinstance(x[0], Sequence) and not isinstance(x[0], str | bytes)
    return getattr(x if hasattr(x, "ndim") else np.asarray(x), "ndim", 0) == 2


def _source(image: Any, place: int) -> tuple[Path | bytes | Image.Image, str]:  # noqa: ANN401 - whatever people have
    if isinstance(image, str | Path):
        return Path(image), str(image)
    name = f"image {place}"
    if isinstance(image, bytes | Image.Image):
        return image, name
    if isinstance(image, np.ndarray | Tensor) and image.ndim in (2, 3):
        pixels = ImageBank.from_arrays(image[None]).images[0]
        array = pixels.permute(1, 2, 0).numpy()
        return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array), name
    raise MetarepError(f"{name} is a {type(image).__name__}; an image is a path, a picture, bytes or a uint8 array")


def notice_depth(images: Any, known: Depth) -> Depth:  # noqa: ANN401 - whatever people have
    """How to read these images where they have more than 8 bits: as is known, else as all of them suggest.

    Warns:
        DepthWarning: something was assumed; see :func:`metarep.data.reading.depth.notice`.
    """
    if isinstance(images, Tensor) or (isinstance(images, np.ndarray) and images.dtype.kind not in "OUS"):
        return known  # arrays are uint8
    return notice(
        ((x if isinstance(x, bytes | Image.Image) else Path(x), "") for x in images if not _is_array(x)), known
    )


def _is_array(image: object) -> bool:
    return not isinstance(image, str | Path | bytes | Image.Image)


def name_of(images: Any, place: int) -> str:  # noqa: ANN401 - whatever people have
    """What to call one of these images: its path, or its place among them."""
    one = None if isinstance(images, Tensor) or getattr(images, "ndim", 1) > 1 else list(images)[place]
    return str(one) if isinstance(one, str | Path) else f"image {place}"
