"""KeyQueue: the keys of past batches, as negatives for the next ones."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from metarep.errors import MetarepError


class KeyQueue(nn.Module):
    """The last ``size`` keys, oldest overwritten first. Keys, pointer and fill are buffers: saved, and resumed exactly.

    It starts as noise on the unit sphere, as in the paper. What is still noise is masked as soon as one key is real, so
    only the first step contrasts against it; the loss then grows with the number of negatives while the queue fills.

    Trap: enqueue after the backward pass, which still needs the keys that were there.

    Args:
        size: keys; small against the data, or most keys are older than the encoder that made them can justify.
        dim: length of a key.
    """

    keys: Float[Tensor, "m dim"]
    pointer: Tensor
    fill: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1:
            raise MetarepError(f"queue must hold at least 1 key, not {size}")
        self.register_buffer("keys", functional.normalize(torch.randn(size, dim), dim=-1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))  # a tensor, so that no step waits for it
        self.register_buffer("fill", torch.zeros((), dtype=torch.long))

    @property
    def valid(self) -> Bool[Tensor, " m"]:
        """Which rows hold a key; all of them, noise as they are, before the first one came."""
        return (torch.arange(len(self.keys), device=self.keys.device) < self.fill) | (self.fill == 0)

    @torch.no_grad()
    def enqueue(self, keys: Float[Tensor, "n dim"]) -> None:
        """Take up a batch of keys, in order; of more than the queue holds the last ones stay."""
        size, new = len(self.keys), len(keys)
        kept = keys[-size:]
        first = self.pointer + (new - len(kept))
        places = (first + torch.arange(len(kept), device=self.keys.device)) % size
        self.keys.index_copy_(0, places, kept.to(self.keys))
        self.pointer.add_(new).remainder_(size)
        self.fill.add_(new).clamp_(max=size)
