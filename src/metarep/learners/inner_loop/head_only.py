"""Gradient steps on the head only, for all tasks at once, by matrix products on features."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from metarep.learners.inner_loop.head import Classifier
from metarep.learners.inner_loop.rates import Rate


def descend_head(
    classifier: Classifier,
    features: Float[Tensor, "task support dim"],
    labels: Int[Tensor, "task support"],
    table: Sequence[Sequence[Rate]],
) -> Classifier:
    """Returns the weight and bias of each task after one gradient step for each row of ``table``.

    This is the inner loop of ANIL (Raghu et al., 2020). The gradient of the mean cross-entropy of a linear classifier
    is ``(p - y) x / support``. As a formula it is differentiated like any other product, so no second graph is needed.

    Args:
        classifier: weight and bias of each task at the start.
        features: features of the support images.
        labels: classes of the support images.
        table: for each step, the rate of the weight and the rate of the bias.

    >>> start = torch.zeros(1, 2, 1), torch.zeros(1, 2)
    >>> weight, bias = descend_head(start, torch.tensor([[[1.0], [-1.0]]]), torch.tensor([[0, 1]]), [[0.1, 0.1]])
    >>> weight.flatten().tolist()
    [0.05000000074505806, -0.05000000074505806]
    """
    weight, bias = classifier
    target = functional.one_hot(labels, weight.shape[-2]).to(features)
    for row in table:
        error = (torch.baddbmm(bias.unsqueeze(1), features, weight.mT).softmax(-1) - target) / features.shape[1]
        weight = weight - row[0] * (error.mT @ features)
        bias = bias - row[1] * error.sum(1)
    return weight, bias
