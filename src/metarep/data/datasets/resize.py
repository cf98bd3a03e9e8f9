"""Resize images that are an array already."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def resized(images: UInt8[np.ndarray, "n 3 h w"], size: int) -> np.ndarray:
    """Resize RGB images to ``size`` x ``size`` by an antialiased bicubic filter.

    Each axis is scaled by its own factor, so nothing is cropped.

    Args:
        images: RGB images, channels first.
        size: height and width in pixels.

    Returns:
        The resized images; the array itself if they have that size already.

    >>> images = resized(np.full((2, 3, 32, 48), 200, dtype=np.uint8), 84)
    >>> images.shape, bool((images == 200).all())
    ((2, 3, 84, 84), True)
    """
    if images.shape[2:] == (size, size):
        return images
    out = np.empty((len(images), 3, size, size), dtype=np.uint8)
    for row, image in enumerate(images):
        picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
        out[row] = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    return out
