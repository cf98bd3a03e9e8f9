"""Measures of collapse: whether a representation still separates images. They cause no host synchronisation."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

COLLAPSED = 0.05  # a spread below this counts as one point: the angle to the mean is then about 3 degrees


@torch.no_grad()
def gauge(features: Float[Tensor, "n dim"], projected: Float[Tensor, "n out"]) -> dict[str, Float[Tensor, ""]]:
    """The figures for the log of a step: the spread of the projections and the effective rank of the features.

    The loss acts on the projections, so a collapse shows there first. The features are what is deployed.

    Returns:
        ``spread`` (0 to 1) and ``rank`` (in dimensions).

    >>> gauge(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.ones(2, 8))
    {'spread': tensor(0.), 'rank': tensor(1.)}
    """
    return {"spread": spread(projected), "rank": effective_rank(features)}


@torch.no_grad()
def spread(rows: Float[Tensor, "n dim"]) -> Float[Tensor, ""]:
    """The standard deviation of normalised rows: 1 if they are spread evenly over the sphere, 0 if they are one point.

    It is the root of the summed variances of all dimensions. In rows that are spread evenly, each dimension has the
    variance 1 / dim.

    >>> spread(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])), spread(torch.ones(3, 2))
    (tensor(1.), tensor(0.))
    """
    return _centred(rows).square().sum(1).mean().sqrt()


@torch.no_grad()
def effective_rank(rows: Float[Tensor, "n dim"]) -> Float[Tensor, ""]:
    """The number of dimensions in which normalised rows vary: the participation ratio of the covariance's eigenvalues.

    ``tr(C)**2 / tr(C @ C)`` is 1 if the rows vary along a line, ``dim`` if they vary equally in all directions, and 0
    if they do not vary. Both traces come from one matrix product, in the order that gives the smaller matrix. A matrix
    decomposition would be a host synchronisation.

    >>> effective_rank(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])).round(decimals=3)
    tensor(2.)
    """
    centred = _centred(rows)
    product = centred.mT @ centred if centred.shape[1] <= centred.shape[0] else centred @ centred.mT
    product = product / len(rows)
    return product.diagonal().sum().square() / (product.square().sum() + 1e-12)


def _centred(rows: Tensor) -> Tensor:
    """Rows on the unit sphere, minus their mean."""
    normalised = functional.normalize(rows if rows.dtype == torch.float64 else rows.float(), dim=-1)
    return normalised - normalised.mean(0)
