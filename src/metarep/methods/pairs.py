"""The contrastive loss of all pairs of a batch, and its gradient, which is written out."""

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

Negatives = Literal["all", "active", "hardest"]
EPS = 1e-6  # under the root, as in metarep.learners.distances.distances


class AllPairs(torch.autograd.Function):
    """Half the mean loss of positive pairs plus half that of negative pairs, and the number of active pairs.

    Of a pair at distance ``d`` the loss is ``d**2 / 2`` if both images are of one class, and
    ``max(0, margin - d)**2 / 2`` if not. Its derivative in ``d**2`` is one number a pair. So a forward pass ends with a
    matrix of these numbers, from which the gradient in the features follows by one matrix product. The distances are
    changed in place, and nothing of the size of the pairs is kept.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - what torch passes
        x: Float[Tensor, "n dim"],
        labels: Int[Tensor, " n"],
        margin: float,
        negatives: Negatives,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Returns the loss, and the share of negative pairs within the margin."""
        squares = x.square().sum(1)
        gap = (x @ x.mT).mul_(-2).add_(squares.unsqueeze(1)).add_(squares).clamp_min_(0).add_(EPS).sqrt_()
        same = labels.unsqueeze(0) == labels.unsqueeze(1)
        hinge = (margin - gap).clamp_min_(0).masked_fill_(same, 0)
        active, others = hinge.count_nonzero(), same.numel() - same.sum()
        counted = active if negatives == "active" else others
        if negatives == "hardest":
            apart = gap.masked_fill(same, torch.inf)
            nearest = ~same & (apart <= apart.amin(1, keepdim=True))
            hinge, counted = hinge.mul_(nearest), nearest.sum()
        far = hinge.square().sum() / counted.clamp_min(1)
        near = gap.square().mul_(same).fill_diagonal_(0).sum() / (same.sum() - len(x)).clamp_min(1)
        slope = hinge.div_(gap).div_(-counted.clamp_min(1))
        if negatives == "hardest":
            slope = (slope + slope.mT) / 2  # otherwise it is symmetric
        slope = torch.where(same, 1 / (same.sum() - len(x)).clamp_min(1).to(x.dtype), slope).fill_diagonal_(0)
        ctx.save_for_backward(slope.sum(1, keepdim=True) * x - slope @ x)
        share = active / others.clamp_min(1)
        ctx.mark_non_differentiable(share)
        return (near + far) / 4, share

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - as above
        """Returns the gradient in the features."""
        (gradient,) = ctx.saved_tensors
        return gradient * above, None, None, None
