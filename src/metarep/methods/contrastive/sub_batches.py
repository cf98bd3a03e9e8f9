"""Sub-batches: batch normalisation in groups on one device, instead of shuffling images between several devices.

A query and its key can be matched by their batch statistics alone if they were normalised in the same batch. With
several devices, each normalises its part of the batch, and the keys are shuffled between the devices. On one device, a
permutation of the batch does not change its statistics. Here the images are normalised in groups, and the groups of the
queries are not those of the keys.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Num
from torch import Tensor

Encode = Callable[[Tensor], Tensor]


def encode_blocks(encode: Encode, images: Num[Tensor, "n *row"], groups: int) -> Float[Tensor, "n dim"]:
    """Encode a batch in ``groups`` contiguous blocks, each with its own batch statistics.

    Returns:
        The features of all images, in order.

    >>> encode_blocks(lambda x: x - x.mean(0), torch.tensor([[0.0], [2.0], [10.0], [20.0]]), 2).flatten()
    tensor([-1.,  1., -5.,  5.])
    """
    return torch.cat([encode(part) for part in images.chunk(groups)])


@torch.no_grad()
def encode_strides(encode: Encode, images: Num[Tensor, "n *row"], groups: int) -> Float[Tensor, "n dim"]:
    """Encode a batch without gradients in ``groups`` groups, each of which holds every ``groups``-th image.

    So a group has an equal share of the images of each block of :func:`encode_blocks`.

    Returns:
        The features of all images, in order.

    >>> encode_strides(lambda x: x - x.mean(0), torch.tensor([[0.0], [2.0], [10.0], [20.0]]), 2).flatten()
    tensor([-5., -9.,  5.,  9.])
    """
    parts = [encode(images[start::groups]) for start in range(min(groups, len(images)))]
    rows = parts[0].new_empty(len(images), *parts[0].shape[1:])
    for start, part in enumerate(parts):
        rows[start::groups] = part
    return rows
