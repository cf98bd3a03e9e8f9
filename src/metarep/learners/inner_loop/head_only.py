"""Gradient steps on the head alone: every task at once, by matrix products on features."""

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
    """The classifier of each task after a step for each row of ``table``.

    The gradient of the mean cross-entropy of a linear classifier is ``(p - y) x / support``: written out, it can be
    differentiated once more like any other product, with no second graph.
    It is the inner loop of ANIL (Raghu et al., 2020).

    Args:
        classifier: at the start.
        features: of the support images.
        labels: their classes.
        table: for each step the rate of weight and of bias.
    """
    weight, bias = classifier
    target = functional.one_hot(labels, weight.shape[-2]).to(features)
    for row in table:
        error = (torch.baddbmm(bias.unsqueeze(1), features, weight.mT).softmax(-1) - target) / features.shape[1]
        weight = weight - row[0] * (error.mT @ features)
        bias = bias - row[1] * error.sum(1)
    return weight, bias
