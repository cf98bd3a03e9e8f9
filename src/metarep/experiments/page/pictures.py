"""Pictures: images as ``data:`` addresses, so that the page needs no other files."""

import base64
import io

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor


def data_uri(image: UInt8[Tensor, "c h w"], largest: int | None = None) -> str:
    """The image as a PNG inside a ``data:`` address, without loss if it is not made smaller.

    Args:
        image: pixels of 1 or 3 channels.
        largest: the largest side in pixels; None for any.

    >>> import torch
    >>> data_uri(torch.zeros(1, 2, 2, dtype=torch.uint8))[:22]
    'data:image/png;base64,'
    """
    array = image.cpu().numpy()
    picture = Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0))
    if largest and max(picture.size) > largest:
        picture.thumbnail((largest, largest))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
