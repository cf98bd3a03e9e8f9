"""The two exchanges of tensors between ranks: by shared memory on one machine, else by torch.distributed."""

from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor

from metarep.machine import faster

_memories: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()  # of each process group; it goes with the group


def add_all(tensor: Tensor) -> None:
    """Replace a contiguous tensor by its sum over ranks."""
    shared = shared_memory()
    if shared is not None and shared.takes(tensor):
        shared.add_all(tensor)
    else:
        dist.all_reduce(tensor)


def all_of(tensor: Tensor) -> list[Tensor]:
    """The tensors of all ranks, in order.

    Args:
        tensor: contiguous, of the same shape and dtype on all ranks.

    Returns:
        Tensors that the next exchange may overwrite, so copy them before.
    """
    shared = shared_memory()
    if shared is not None and shared.takes(tensor):
        return shared.gather(tensor)
    each = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(each, tensor)
    return each


def shared_memory() -> Any:  # noqa: ANN401 - see faster
    """The memory that all ranks share, made at the first exchange of a process group; None if they share none."""
    group = dist.group.WORLD
    if group not in _memories:
        _memories[group] = faster.shared_memory()
    return _memories[group]
