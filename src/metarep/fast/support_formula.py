"""The support gradient and Hessian-vector product of Conv4 by formula, for one task on the CPU or for many tasks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from metarep.encoders import Encoder
from metarep.encoders.normalisation import Normalisation, batch_norms
from metarep.fast import conv4_curvature
from metarep.fast.conv4_block import as_made
from metarep.learners.inner_loop.support_gradient import SupportFormula, SupportGradient, Weights


def of_one_task(encoder: Encoder, normalisation: Normalisation) -> SupportFormula | None:
    """As :func:`metarep.machine.faster.support_formula`."""
    on_cpu = all(parameter.device.type == "cpu" for parameter in encoder.body.parameters())
    if normalisation == "running" or not on_cpu or not as_made(encoder.body):
        return None
    eps = batch_norms(encoder.body)[0].eps
    kind = torch.bfloat16 if encoder.precision == "bfloat16" else None

    def formula(weights: Weights, adapted: Sequence[int], support: Tensor, labels: Tensor) -> SupportGradient:
        *many, x, y = (tensor.unsqueeze(0) for tensor in (*weights, support, labels))
        result = of_many_tasks(many, adapted, x, y, eps, kind)
        assert result.hessian_vector_product is not None
        of_all = result.hessian_vector_product

        def hessian_vector_product(v: Sequence[Tensor]) -> list[Tensor | None]:
            return [None if part is None else part.squeeze(0) for part in of_all([part.unsqueeze(0) for part in v])]

        seen = [(mean.squeeze(0), variance.squeeze(0)) for mean, variance in result.seen]
        return SupportGradient(result.loss, [part.squeeze(0) for part in result.gradient], hessian_vector_product, seen)

    return formula


@torch.no_grad()
def of_many_tasks(
    weights: Weights,
    adapted: Sequence[int],
    support: Tensor,
    labels: Tensor,
    eps: float,
    of_derivatives: torch.dtype | None = None,
) -> SupportGradient:
    """Computes the support gradient of many tasks, with the task axis first in every tensor.

    Args:
        weights, adapted, support, labels: as a :data:`SupportFormula` takes them.
        eps: of the norm layers.
        of_derivatives: dtype of the convolutions in the Hessian-vector product; None for that of the weights.
    """
    kind = of_derivatives or weights[0].dtype
    loss, gradient, tape, seen = conv4_curvature.gradient(weights, support, labels, eps, kind)

    @torch.no_grad()
    def hessian_vector_product(v: Sequence[Tensor]) -> Sequence[Tensor | None]:
        full = [torch.zeros_like(weight) for weight in weights]
        for i, part in zip(adapted, v, strict=True):
            full[i] = part
        return conv4_curvature.hessian_vector_product(tape, full)

    return SupportGradient(loss, [gradient[i] for i in adapted], hessian_vector_product, seen)
