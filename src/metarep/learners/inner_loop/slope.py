"""Slope: loss, gradient and Hessian-vector product of a support set."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from metarep.encoders.normalisation import Statistics

Weights = Sequence[Tensor]  # of the body in the order of its parameters, then the head's weight and bias
Bend = Callable[[Sequence[Tensor]], Sequence[Tensor | None]]


class Slope(NamedTuple):
    """The support loss at some weights, and its first two derivatives there.

    Args:
        loss: mean cross-entropy; of many tasks the sum over them.
        gradient: with respect to each adapted tensor.
        bend: the Hessian-vector product. It takes a vector (a part for each adapted tensor) and returns the Hessian
            times that vector, with a part for every tensor, None where it is zero. It is None where it was not asked
            for.
        seen: the batch statistics of the support, where they were asked for.
    """

    loss: Tensor
    gradient: list[Tensor]
    bend: Bend | None
    seen: Statistics


SupportFormula = Callable[[Weights, Sequence[int], Tensor, Tensor], Slope]
"""From the weights, the places of the adapted ones, and the support's images and labels."""
