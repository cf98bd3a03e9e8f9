"""KeyQueue: the keys of past batches, which are negatives for the next batches."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from metarep.errors import MetarepError


class KeyQueue(nn.Module):
    """A queue of the last ``size`` keys, in which the oldest keys are overwritten first.

    Keys, pointer and fill are buffers, so they are saved, and a resumed training continues exactly. The queue starts
    with noise on the unit sphere, as in the paper. Noise is masked as soon as there is one real key, so only the first
    step contrasts with it. The loss then grows with the number of negatives until the queue is full.

    Trap: call :meth:`enqueue` after the backward pass, which still needs the old keys.

    Args:
        size: number of keys. It must be small against the data set, or most keys are from a much older encoder.
        dim: length of a key.

    Raises:
        MetarepError: ``size`` is below 1.

    >>> queue = KeyQueue(3, 2)
    >>> queue.enqueue(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> queue.keys[:2].tolist(), queue.valid.tolist()
    ([[1.0, 0.0], [0.0, 1.0]], [True, True, False])
    """

    keys: Float[Tensor, "m dim"]
    pointer: Tensor
    fill: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1:
            raise MetarepError(f"queue must hold at least 1 key, not {size}")
        self.register_buffer("keys", functional.normalize(torch.randn(size, dim), dim=-1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))  # on the device: no synchronisation
        self.register_buffer("fill", torch.zeros((), dtype=torch.long))

    @property
    def valid(self) -> Bool[Tensor, " m"]:
        """The mask of the rows that hold a key; before the first key, it is true for all rows of noise."""
        return (torch.arange(len(self.keys), device=self.keys.device) < self.fill) | (self.fill == 0)

    @torch.no_grad()
    def enqueue(self, keys: Float[Tensor, "n dim"]) -> None:
        """Add a batch of keys, in order; of a batch that is larger than the queue, the last keys stay."""
        size, new = len(self.keys), len(keys)
        kept = keys[-size:]
        first = self.pointer + (new - len(kept))
        rows = (first + torch.arange(len(kept), device=self.keys.device)) % size
        self.keys.index_copy_(0, rows, kept.to(self.keys))
        self.pointer.add_(new).remainder_(size)
        self.fill.add_(new).clamp_(max=size)
