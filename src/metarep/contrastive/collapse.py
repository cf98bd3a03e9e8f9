"""The collapse gauge: whether a representation still tells images apart. It never makes a step wait for the device."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

COLLAPSED = 0.05  # a spread below this is a point: the angle to the mean is then about 3 degrees


@torch.no_grad()
def gauge(features: Float[Tensor, "n dim"], projected: Float[Tensor, "n out"]) -> dict[str, Float[Tensor, ""]]:
    """What a step puts into its log: the spread of the projections and the effective rank of the features.

    The loss acts on projections, so there a collapse shows first; the features are what is deployed.
    """
    return {"spread": spread(projected), "rank": effective_rank(features)}


@torch.no_grad()
def spread(rows: Float[Tensor, "n dim"]) -> Float[Tensor, ""]:
    """Standard deviation of normalised rows, in units of an even cover of the sphere: 1, and 0 for a single point.

    The root of the summed variances of all dimensions: of evenly spread rows each has the variance 1 / dim.
    """
    return _centred(rows).square().sum(1).mean().sqrt()


@torch.no_grad()
def effective_rank(rows: Float[Tensor, "n dim"]) -> Float[Tensor, ""]:
    """How many dimensions normalised rows vary in: the participation ratio of their covariance's eigenvalues.

    ``tr(C)**2 / tr(C @ C)``: from 1, on a line, to dim, evenly in all directions; 0 where nothing varies. Both traces
    come from one matrix product of whichever order is smaller; a decomposition would wait for the device.
    """
    centred = _centred(rows)
    product = centred.mT @ centred if centred.shape[1] <= centred.shape[0] else centred @ centred.mT
    product = product / len(rows)
    return product.diagonal().sum().square() / (product.square().sum() + 1e-12)


def _centred(rows: Tensor) -> Tensor:
    normalised = functional.normalize(rows if rows.dtype == torch.float64 else rows.float(), dim=-1)
    return normalised - normalised.mean(0)
