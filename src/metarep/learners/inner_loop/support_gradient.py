"""SupportGradient: loss, gradient and Hessian-vector product of a support set."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from metarep.encoders.normalisation import Statistics

Weights = Sequence[Tensor]  # the body's parameters in their order, then the head's weight and bias
HessianVectorProduct = Callable[[Sequence[Tensor]], Sequence[Tensor | None]]


class SupportGradient(NamedTuple):
    """The support loss at some weights, with its gradient and its Hessian-vector product at the same weights.

    Args:
        loss: mean cross-entropy; for many tasks, the sum over them.
        gradient: one part for each adapted tensor.
        hessian_vector_product: takes a vector (a part for each adapted tensor) and returns the Hessian times that
            vector (a part for every tensor, None where it is zero). It is None if it was not requested.
        seen: the batch statistics of the support set; empty if they were not requested.
    """

    loss: Tensor
    gradient: list[Tensor]
    hessian_vector_product: HessianVectorProduct | None
    seen: Statistics


SupportFormula = Callable[[Weights, Sequence[int], Tensor, Tensor], SupportGradient]
"""Takes the weights, the positions of the adapted ones, and the images and labels of the support set."""
