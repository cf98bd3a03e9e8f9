"""Sub-batches: batch normalisation in groups on one device, in place of shuffling between several.

A query and its key that are normalised by the same batch share its statistics, and can find each other by those alone.
Several devices prevent it by normalising each their part and shuffling the keys between them. On one device permuting
the batch changes no statistic; what helps is to normalise in groups, other ones for queries than for keys.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Num
from torch import Tensor

Encode = Callable[[Tensor], Tensor]


def encode_blocks(encode: Encode, images: Num[Tensor, "n *row"], groups: int) -> Float[Tensor, "n dim"]:
    """Encode ``groups`` neighbouring parts of a batch one after the other, so that each has statistics of its own."""
    return torch.cat([encode(part) for part in images.chunk(groups)])


@torch.no_grad()
def encode_strides(encode: Encode, images: Num[Tensor, "n *row"], groups: int) -> Float[Tensor, "n dim"]:
    """The same, without gradient, for every ``groups``-th image: of each block of ``encode_blocks`` an equal share."""
    parts = [encode(images[start::groups]) for start in range(min(groups, len(images)))]
    rows = parts[0].new_empty(len(images), *parts[0].shape[1:])
    for start, part in enumerate(parts):
        rows[start::groups] = part
    return rows
