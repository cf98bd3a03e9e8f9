"""Training losses as pure functions of float tensors. Pairs and triplets are tensors, never lists or loops."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from metarep.errors import MetarepError
from metarep.learners.distances import distances, squared_distances
from metarep.methods.batch_all import all_triplets
from metarep.methods.pairs import AllPairs, Negatives, mean_where, same_class

Mining = Literal["batch-all", "semi-hard", "batch-hard"]


def centred(features: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
    """Features minus their mean, which has no gradient: the distances between them stay the same.

    Without it, a distance in float32 is off by a tenth where features are 10 ± 0.01, because it comes from a matrix
    product (:func:`metarep.learners.distances.squared_distances`). Features on the unit sphere do not need it.

    >>> centred(torch.tensor([[10.0, 1.0], [12.0, 1.0]])).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    return features - features.detach().mean(0)


def pair_loss(
    features: Float[Tensor, "n dim"], labels: Int[Tensor, " n"], margin: float, negatives: Negatives = "all"
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The contrastive loss of a batch: half the mean over positive pairs plus half the mean over negative pairs.

    Of a pair of one class at distance ``d`` the loss is ``d**2 / 2``, of another pair ``max(0, margin - d)**2 / 2``
    (Hadsell, Chopra, LeCun, Dimensionality Reduction by Learning an Invariant Mapping, 2006, where Y = 1 means
    *dissimilar*). The form ``max(0, m - y * d**2)`` that is often printed, with y = 1 for the same class, does the
    opposite for positive pairs and nothing for negative ones.

    A batch has far more negative pairs than positive ones, so a plain mean would almost ignore the positive ones.

    Args:
        features: one row an image.
        labels: the class of each row.
        margin: distance beyond which negative pairs have no loss.
        negatives: which negative pairs are averaged. ``all``: all of them. ``active``: those within the margin, which
            are few late in training and hardly count in a mean over all. ``hardest``: each image with its nearest image
            of another class.

    Returns:
        The loss, and the share of negative pairs within the margin ("active"), 0 to 1.

    >>> loss, active = pair_loss(torch.tensor([[0.0], [3.0], [9.0]]), torch.tensor([0, 0, 1]), margin=8.0)
    >>> round(loss.item(), 3), active.item()
    (2.75, 0.5)
    """
    with torch.autocast(features.device.type, enabled=False):
        wide = features if features.dtype == torch.float64 else features.float()
        loss, active, _ = AllPairs.apply(wide, labels, margin, negatives)
    return loss, active


def triplet_loss(
    features: Float[Tensor, "n dim"],
    labels: Int[Tensor, " n"],
    *,
    margin: float | None,
    mining: Mining,
    squared: bool,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The triplet loss of a batch: each anchor must be nearer to its positive than to a negative, by a margin.

    Args:
        features: one row an image.
        labels: the class of each row.
        margin: in units of the distance. None takes the soft margin ``log(1 + exp(d_positive - d_negative))``.
        mining: which triplets count. ``batch-all``: all triplets that still have a loss. ``semi-hard``: for each
            anchor-positive pair, the nearest negative that is farther than the positive; if there is none, the farthest
            negative (Schroff et al., FaceNet, 2015). ``batch-hard``: for each anchor, its farthest positive and its
            nearest negative (Hermans et al., In Defense of the Triplet Loss, 2017).
        squared: use squared distances (FaceNet) instead of plain ones (Hermans).

    Returns:
        The mean loss, and the share of mined triplets that still have a loss ("active"), 0 to 1. The loss of
        ``batch-all`` can stay near the margin while this share falls, so watch both.

    Raises:
        MetarepError: ``mining`` is unknown.

    >>> rows, labels = torch.tensor([[0.0], [3.0], [4.0]]), torch.tensor([0, 0, 1])
    >>> loss, active = triplet_loss(rows, labels, margin=0.5, mining="batch-hard", squared=False)
    >>> round(loss.item(), 3), active.item()
    (1.25, 0.5)
    """
    positive, negative = same_class(labels)
    gap = squared_distances(features, features) if squared else distances(features, features)
    if mining == "batch-all":
        return all_triplets(gap, positive, negative, margin)
    far = torch.finfo(gap.dtype).max
    if mining == "semi-hard":
        # Sort the negatives of each anchor by distance, and look up where each positive would stand among them. The
        # negative at this rank is the nearest one beyond the positive; behind the last one, the last is taken. This
        # avoids a mask over triplets, which needs memory for n**3 values.
        ordered = gap.masked_fill(~negative, far).sort(1).values
        rank = torch.searchsorted(ordered.detach(), gap.detach(), right=True)
        last = (negative.sum(1, keepdim=True) - 1).clamp_min(0)
        value = _hinge(gap - ordered.gather(1, torch.minimum(rank, last)), margin)
        mined = positive & negative.any(1, keepdim=True)
    elif mining == "batch-hard":
        value = _hinge(gap.masked_fill(~positive, 0).amax(1) - gap.masked_fill(~negative, far).amin(1), margin)
        mined = positive.any(1) & negative.any(1)
    else:
        raise MetarepError(f"mining {mining!r} is not one of batch-all, semi-hard, batch-hard")
    return mean_where(value, mined), (mined & (value > 1e-7)).sum() / mined.sum().clamp_min(1)


def _hinge(difference: Tensor, margin: float | None) -> Tensor:
    """The loss of a difference of distances: a hinge, or softplus if ``margin`` is None."""
    return functional.softplus(difference) if margin is None else (difference + margin).clamp_min(0)


def distillation_loss(
    logits: Float[Tensor, "*row classes"], teacher: Float[Tensor, "*row classes"], temperature: float
) -> Float[Tensor, ""]:
    """How far softened predictions are from those of a teacher: their Kullback-Leibler divergence, mean over rows.

    ``t**2 * KL(softmax(teacher / t) || softmax(logits / t))``. Hinton, Vinyals, Dean, Distilling the Knowledge in a
    Neural Network, 2015. The factor ``t**2`` keeps the size of the gradient the same for every temperature.

    Args:
        logits: of the student; they get the gradient.
        teacher: of the teacher, for the same rows and classes.
        temperature: divides both; a higher one looks more at the classes that the teacher holds for unlikely.

    >>> distillation_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]), 4.0).item()
    0.0
    >>> round(distillation_loss(torch.zeros(1, 2), torch.tensor([[0.0, 2.0]]), 2.0).item(), 4)
    0.4438
    """
    own, wanted = (logits / temperature).log_softmax(-1), (teacher / temperature).log_softmax(-1)
    return temperature**2 * (wanted.exp() * (wanted - own)).sum(-1).mean()
