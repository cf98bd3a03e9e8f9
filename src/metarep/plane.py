"""Plane: many numbers a row seen as two, for maps."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def flatten(rows: Float[Tensor, "n dim"]) -> tuple[Float[Tensor, "n 2"], float]:
    """The two principal components of ``rows``, fitted into the unit square, and their share of the variance.

    The sign of a component is arbitrary; here its largest weight is positive, so that one run draws one map.

    >>> places, share = flatten(torch.tensor([[0.0, 0.0, 5.0], [1.0, 0.0, 5.0], [2.0, 1.0, 5.0]]))
    >>> places.min().item(), places.max().item(), round(share, 3)
    (0.0, 1.0, 1.0)
    """
    centred = rows.double() - rows.double().mean(0)
    _, values, directions = torch.linalg.svd(centred, full_matrices=False)
    top = directions[:2]
    top = top * top.gather(1, top.abs().argmax(1, keepdim=True)).sign()
    flat = centred @ top.T
    flat = functional.pad(flat, (0, 2 - flat.shape[1]))
    low, spread = flat.amin(0), (flat.amax(0) - flat.amin(0)).max().clamp_min(1e-12)
    middle = (1 - (flat.amax(0) - low) / spread) / 2
    share = values[:2].square().sum() / values.square().sum().clamp_min(1e-12)
    return ((flat - low) / spread + middle).float(), share.item()
