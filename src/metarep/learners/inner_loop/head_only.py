"""Gradient steps on the head only, for all tasks at once, by matrix products on features."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from metarep.learners.inner_loop.head import Classifier
from metarep.learners.inner_loop.rates import Rate

LEAST = 1e-6  # length of a row of the classifier, below which it is a class without any direction


def descend_head(
    classifier: Classifier,
    features: Float[Tensor, "task support dim"],
    labels: Int[Tensor, "task support"],
    table: Sequence[Sequence[Rate]],
    temperature: float | None = None,
) -> Classifier:
    """Returns the weight and bias of each task after one gradient step for each row of ``table``.

    This is the inner loop of ANIL (Raghu et al., 2020). The gradient of the mean cross-entropy of a linear classifier
    is ``(p - y) x / support``. As a formula it is differentiated like any other product, so no second graph is needed.

    Args:
        classifier: weight and bias of each task at the start.
        features: features of the support images.
        labels: classes of the support images.
        table: for each step, the rate of the weight and the rate of the bias.
        temperature: for a cosine classifier, what its cosines are divided by. The weight that is returned then has rows
            of length ``1 / temperature``, for features of length 1.

    >>> start = torch.zeros(1, 2, 1), torch.zeros(1, 2)
    >>> weight, bias = descend_head(start, torch.tensor([[[1.0], [-1.0]]]), torch.tensor([[0, 1]]), [[0.1, 0.1]])
    >>> weight.flatten().tolist()
    [0.05000000074505806, -0.05000000074505806]
    """
    weight, bias = classifier
    target = functional.one_hot(labels, weight.shape[-2]).to(features)
    if temperature:
        return _descend_cosine(weight, functional.normalize(features, dim=-1), target, table, temperature), bias
    for row in table:
        error = (torch.baddbmm(bias.unsqueeze(1), features, weight.mT).softmax(-1) - target) / features.shape[1]
        weight = weight - row[0] * (error.mT @ features)
        bias = bias - row[1] * error.sum(1)
    return weight, bias


def _descend_cosine(
    weight: Tensor, features: Tensor, target: Tensor, table: Sequence[Sequence[Rate]], temperature: float
) -> Tensor:
    """The rows of a cosine classifier after the steps, scaled to the length ``1 / temperature``.

    The gradient of a cosine in a row is the feature minus its part along the row, over the length of the row.
    """
    for row in table:
        length = weight.norm(dim=-1, keepdim=True).clamp_min(LEAST)
        unit = weight / length
        error = ((features @ unit.mT / temperature).softmax(-1) - target) / features.shape[1]
        pull = error.mT @ features / temperature
        weight = weight - row[0] * (pull - (pull * unit).sum(-1, keepdim=True) * unit) / length
    return functional.normalize(weight, dim=-1) / temperature
