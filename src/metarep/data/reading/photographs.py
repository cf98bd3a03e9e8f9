"""Read images of any kind (files, bytes, pictures, arrays) as uint8 batches for an encoder."""

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
from metarep.data.reading.depth import Depth
from metarep.data.reading.depth_survey import notice
from metarep.errors import DataError, MetarepError

STRETCH = 4 / 3  # a photograph of 4:3 is kept whole; longer pictures lose their ends


@runtime_checkable
class Wanted(Protocol):
    """The size and the number of channels that images must have, such as an encoder's ``Preprocess``."""

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
        errors: the error of each such image, by its position among all images. It grows while images are read.
    """

    def __init__(self) -> None:
        self.errors: dict[int, DataError] = {}

    def others(self) -> Iterator[int]:
        """Yield the positions of the readable images, in order. Take no more of them than images have been read."""
        return (position for position in count() if position not in self.errors)

    def tell(self, total: int) -> None:
        """Warn of each of ``total`` images that was left out, after all are read; see
        :func:`metarep.data.datasets.options.warn_of_left_out`.
        """
        warn_of_left_out((self.errors[position].message for position in sorted(self.errors)), total)


def read_images(
    images: Sequence[Any] | np.ndarray | Tensor,
    preprocess: Wanted,
    *,
    batch: int = 64,
    depth: Depth | None = None,
    left_out: LeftOut | None = None,
) -> Iterator[UInt8[Tensor, "b c h w"]]:
    """Read images of any kind, and yield them as uint8 batches of the size that an encoder wants.

    Args:
        images: paths, bytes of files, PIL pictures, or one uint8 array ``(n, h, w)``, ``(n, c, h, w)`` or
            ``(n, h, w, c)``; or a list of such arrays without ``n``, which may differ in size. An array is scaled and
            cut like a file of the same picture.
        preprocess: that of the encoder; only its size and channels are used.
        batch: number of images in a batch; the last one may be smaller.
        depth: black and white of 16-bit, 32-bit and floating-point pictures; see :mod:`metarep.data.reading.depth`.
        left_out: collects the errors of images that cannot be read. Without it, the first error is raised.

    Raises:
        DataError: an image cannot be read. The message names it; see :func:`metarep.data.reading.decode.decode`.
        MetarepError: an item is not an image, or ``images`` is not a list or an array of images.
    """
    if isinstance(images, str | Path | bytes):
        raise MetarepError(f"{str(images)[:80]!r} is not a list of images; put it into a list")
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
    rows: list[np.ndarray] = []
    for position, pixels in enumerate(decoded):
        if isinstance(pixels, np.ndarray):
            rows.append(pixels)
        elif left_out is None:
            raise pixels
        else:
            left_out.errors[position] = pixels
        if len(rows) == batch:
            yield torch.from_numpy(np.stack(rows))
            rows = []
    if rows:
        yield torch.from_numpy(np.stack(rows))


def as_sources(images: Sequence[Any] | np.ndarray | Tensor) -> list[tuple[Path | bytes | Image.Image, str]]:
    """Convert images of any kind to the sources that ``decode_all`` takes, each with its name."""
    return [_source(image, position) for position, image in enumerate(images)]


def are_features(x: object) -> bool:
    """Whether ``x`` is a table of features, with one row for each item, and not images.

    >>> are_features([[0.5, 1.0]]), are_features(["a.jpg"])
    (True, False)
    """
    if isinstance(x, Sequence):
        return bool(len(x)) and isinstance(x[0], Sequence) and not isinstance(x[0], str | bytes)
    return getattr(x if hasattr(x, "ndim") else np.asarray(x), "ndim", 0) == 2


def _source(image: Any, position: int) -> tuple[Path | bytes | Image.Image, str]:  # noqa: ANN401 - whatever people have
    if isinstance(image, str | Path):
        return Path(image), str(image)
    name = f"image {position}"
    if isinstance(image, bytes | Image.Image):
        return image, name
    if isinstance(image, np.ndarray | Tensor) and image.ndim in (2, 3):
        pixels = ImageBank.from_arrays(image[None]).images[0]
        array = pixels.permute(1, 2, 0).numpy()
        return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array), name
    raise MetarepError(
        f"{name} is of type {type(image).__name__}, which is not an image; give a path, a picture, "
        "bytes or a uint8 array"
    )


def notice_depth(images: Any, known: Depth) -> Depth:  # noqa: ANN401 - whatever people have
    """Choose black and white of images of more than 8 bits: the known values, else values chosen from all images.

    Args:
        images: see :func:`read_images`.
        known: ranges that are known already.

    Warns:
        DepthWarning: a range was assumed; see :func:`metarep.data.reading.depth_survey.notice`.
    """
    if isinstance(images, Tensor) or (isinstance(images, np.ndarray) and images.dtype.kind not in "OUS"):
        return known  # arrays are uint8
    return notice(
        ((x if isinstance(x, bytes | Image.Image) else Path(x), "") for x in images if not _is_array(x)), known
    )


def _is_array(image: object) -> bool:
    return not isinstance(image, str | Path | bytes | Image.Image)


def name_of(images: Any, position: int) -> str:  # noqa: ANN401 - whatever people have
    """The name of one image in messages: its path, or its position among the images.

    >>> name_of(["moth.jpg"], 0), name_of(np.zeros((2, 8, 8)), 1)
    ('moth.jpg', 'image 1')
    """
    one = None if isinstance(images, Tensor) or getattr(images, "ndim", 1) > 1 else list(images)[position]
    return str(one) if isinstance(one, str | Path) else f"image {position}"
