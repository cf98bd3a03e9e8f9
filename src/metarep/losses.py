"""Training losses as pure functions of float tensors. Pairs and triplets are tensors, never lists or loops."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from metarep.errors import MetarepError
from metarep.learners.distances import distances, squared_distances

Mining = Literal["batch-all", "semi-hard", "batch-hard"]
Negatives = Literal["all", "active", "hardest"]


def same_class(labels: Int[Tensor, " n"]) -> tuple[Bool[Tensor, "n n"], Bool[Tensor, "n n"]]:
    """Which pairs are positive (one class, two different images) and which negative (two classes)."""
    same = labels.unsqueeze(0) == labels.unsqueeze(1)
    return same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device), ~same


def contrastive(distance: Float[Tensor, "*pair"], same: Bool[Tensor, "*pair"], margin: float) -> Float[Tensor, "*pair"]:
    """The contrastive loss of each pair: pull the same class together, push others beyond the margin.

    ``same: d**2 / 2``, ``different: max(0, margin - d)**2 / 2``. Hadsell, Chopra, LeCun, Dimensionality Reduction by
    Learning an Invariant Mapping, 2006 (where Y = 1 means *dissimilar*; here the argument says which).

    The form ``max(0, m - y * d**2)`` that is often printed, with y = 1 for the same class, does the opposite for
    positive pairs and nothing for negative ones; see :func:`inverted_contrastive`.

    >>> contrastive(torch.tensor([0.5, 0.5]), torch.tensor([True, False]), 1.0)
    tensor([0.1250, 0.1250])
    """
    return torch.where(same, distance.square(), (margin - distance).clamp_min(0).square()) / 2


def inverted_contrastive(
    distance: Float[Tensor, "*pair"], same: Bool[Tensor, "*pair"], margin: float
) -> Float[Tensor, "*pair"]:
    """``max(0, margin - y * d**2)`` with y = 1 for the same class, as often printed; do not train with it.

    Kept for one test and the page that explains it: its gradient pushes images of one class *apart* until
    ``d = sqrt(margin)``, and images of two classes get no gradient at all.
    """
    return (margin - same.to(distance) * distance.square()).clamp_min(0)


def pair_loss(
    features: Float[Tensor, "n dim"], labels: Int[Tensor, " n"], margin: float, negatives: Negatives = "all"
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Contrastive loss over the pairs of a batch: half the mean over positive pairs, half over negative pairs.

    A batch has far more negative pairs than positive ones; a plain mean would all but forget the positive ones.

    Args:
        features: one row an image.
        labels: the class of each row.
        margin: in units of the distance.
        negatives: which negative pairs the mean is over: ``all``; ``active``, those within the margin, which late in
            training are few and drown in a mean over all; ``hardest``, each image with its nearest of another class.

    Returns:
        The loss, and the share of negative pairs that are within the margin ("active").
    """
    positive, negative = same_class(labels)
    gap = distances(features, features)
    loss = contrastive(gap, positive, margin)
    active = negative & (loss > 0)
    nearest = gap.masked_fill(~negative, torch.inf).amin(1, keepdim=True)
    counted = {"all": negative, "active": active, "hardest": negative & (gap <= nearest)}[negatives]
    return (mean_where(loss, positive) + mean_where(loss, counted)) / 2, active.sum() / negative.sum().clamp_min(1)


def triplet_loss(
    features: Float[Tensor, "n dim"],
    labels: Int[Tensor, " n"],
    *,
    margin: float | None,
    mining: Mining,
    squared: bool,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Triplet loss: every anchor nearer to its positive than to a negative, by a margin.

    Args:
        features: one row an image.
        labels: the class of each row.
        margin: in units of the distance; None takes the soft margin ``log(1 + exp(d_positive - d_negative))``.
        mining: ``batch-all``, the mean over all triplets that are not yet satisfied; ``semi-hard``, for each
            anchor-positive pair the nearest negative that is farther than the positive, or else the farthest negative
            (Schroff et al., FaceNet, 2015); ``batch-hard``, for each anchor its farthest positive and nearest negative
            (Hermans et al., In Defense of the Triplet Loss, 2017).
        squared: use squared distances (FaceNet) or plain ones (Hermans).

    Returns:
        The loss, and the share of mined triplets that still have a loss ("active"): the loss of ``batch-all`` can stay
        near the margin while this share falls, so watch both.
    """
    positive, negative = same_class(labels)
    gap = squared_distances(features, features) if squared else distances(features, features)
    if mining == "batch-all":
        triplet = positive.unsqueeze(2) & negative.unsqueeze(1)  # anchor positive negative
        value = _hinge(gap.unsqueeze(2) - gap.unsqueeze(1), margin)
        active = triplet & (value > 1e-7)
        return mean_where(value, active), active.sum() / triplet.sum().clamp_min(1)
    far = torch.finfo(gap.dtype).max
    if mining == "semi-hard":
        # Each anchor's negatives in order, and where in that order each positive would stand: the next one is the
        # nearest beyond it; after the last there is none, so the last is taken. A mask over triplets costs n**3.
        ordered = gap.masked_fill(~negative, far).sort(1).values
        place = torch.searchsorted(ordered.detach(), gap.detach(), right=True)
        last = (negative.sum(1, keepdim=True) - 1).clamp_min(0)
        value = _hinge(gap - ordered.gather(1, torch.minimum(place, last)), margin)
        mined = positive & negative.any(1, keepdim=True)
    elif mining == "batch-hard":
        value = _hinge(gap.masked_fill(~positive, 0).amax(1) - gap.masked_fill(~negative, far).amin(1), margin)
        mined = positive.any(1) & negative.any(1)
    else:
        raise MetarepError(f"mining {mining!r} is not one of batch-all, semi-hard, batch-hard")
    return mean_where(value, mined), (mined & (value > 1e-7)).sum() / mined.sum().clamp_min(1)


def _hinge(difference: Tensor, margin: float | None) -> Tensor:
    return functional.softplus(difference) if margin is None else (difference + margin).clamp_min(0)


def mean_where(values: Float[Tensor, "*n"], mask: Bool[Tensor, "*n"]) -> Float[Tensor, ""]:
    """The mean of the values where the mask holds; zero, with gradient, where it nowhere does."""
    return torch.where(mask, values, 0).sum() / mask.sum().clamp_min(1)
