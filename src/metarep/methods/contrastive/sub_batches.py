"""Sub-batches: batch normalisation in groups on one device, instead of shuffling images between several devices.

A query and its key can be matched by their batch statistics alone if they were normalised in the same batch. With
several devices, each normalises its part of the batch, and the keys are shuffled between the devices. On one device, a
permutation of the batch does not change its statistics. Here the images are normalised in groups, and the groups of the
queries are not those of the keys. Several processes have the same groups as one: a group of queries lies within a
process, and the statistics of a group of keys span all processes.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Num
from torch import Tensor

from metarep.encoders.normalisation import synchronised
from metarep.errors import Advice, MetarepError
from metarep.machine.ranks import ranks

Encode = Callable[[Tensor], Tensor]


def encode_blocks(encode: Encode, images: Num[Tensor, "n *row"], groups: int) -> Float[Tensor, "n dim"]:
    """Encode a batch in ``groups`` contiguous blocks, each with its own batch statistics.

    Args:
        encode: the network.
        images: those of this process.
        groups: number of blocks of the batch of all processes.

    Returns:
        The features of the images, in order.

    >>> encode_blocks(lambda x: x - x.mean(0), torch.tensor([[0.0], [2.0], [10.0], [20.0]]), 2).flatten()
    tensor([-1.,  1., -5.,  5.])
    """
    if groups == 1:
        return encode(images)
    with synchronised(False):  # a block lies within a process
        return torch.cat([encode(part) for part in images.chunk(groups // ranks())])


@torch.no_grad()
def encode_strides(
    encode: Encode, images: Num[Tensor, "n *row"], groups: int, before: int = 0
) -> Float[Tensor, "n dim"]:
    """Encode a batch without gradients in ``groups`` groups, each of which holds every ``groups``-th image.

    So a group has an equal share of the images of each block of :func:`encode_blocks`.

    Args:
        encode: the network.
        images: those of this process.
        groups: number of groups of the batch of all processes.
        before: number of images of the processes before this one.

    Returns:
        The features of the images, in order.

    >>> encode_strides(lambda x: x - x.mean(0), torch.tensor([[0.0], [2.0], [10.0], [20.0]]), 2).flatten()
    tensor([-5., -9.,  5.,  9.])
    """
    own = [(group - before) % groups for group in range(groups)]
    parts = [(start, encode(images[start::groups])) for start in own if start < len(images)]
    rows = parts[0][1].new_empty(len(images), *parts[0][1].shape[1:])
    for start, part in parts:
        rows[start::groups] = part
    return rows


def check_groups(groups: int, images: int) -> None:
    """Refuse groups that several processes cannot form as one process does.

    Args:
        groups: number of groups of a batch.
        images: number of images of the batch.

    Raises:
        MetarepError: a group of queries would lie in two processes, or a process would have no image of some group of
            keys.
    """
    if ranks() == 1 or groups == 1 or (groups % ranks() == images % groups == 0 and images // ranks() >= groups):
        return
    raise MetarepError(
        f"norm_groups={groups} of a batch of {images} images cannot be split over {ranks()} processes",
        advice=Advice(
            "take {norm_groups}, or a multiple of the number of processes that divides {images}",
            norm_groups=1,
            images=...,
        ),
    )
