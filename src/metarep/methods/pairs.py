"""The pairs of a batch, and the contrastive loss of all of them, whose gradient is written out."""

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarep.learners.distances import EPS, distances

Negatives = Literal["all", "active", "hardest"]


def same_class(labels: Int[Tensor, " n"]) -> tuple[Bool[Tensor, "n n"], Bool[Tensor, "n n"]]:
    """The masks of the positive pairs (two different images of one class) and of the negative pairs (two classes).

    >>> same_class(torch.tensor([0, 0, 1]))[0].int()
    tensor([[0, 1, 0],
            [1, 0, 0],
            [0, 0, 0]], dtype=torch.int32)
    """
    same = labels.unsqueeze(0) == labels.unsqueeze(1)
    return same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device), ~same


def mean_where(values: Float[Tensor, "*n"], mask: Bool[Tensor, "*n"]) -> Float[Tensor, ""]:
    """The mean of the values where the mask is true. If it is nowhere true, the result is zero and has a gradient.

    >>> mean_where(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([True, False, True]))
    tensor(3.5000)
    """
    return torch.where(mask, values, 0).sum() / mask.sum().clamp_min(1)


class AllPairs(torch.autograd.Function):
    """Half the mean loss of positive pairs plus half that of negative pairs.

    Of a pair at distance ``d`` the loss is ``d**2 / 2`` if both images are of one class, and
    ``max(0, margin - d)**2 / 2`` if not. Its derivative in ``d**2`` is one number a pair. So a forward pass ends with a
    matrix of these numbers, from which the gradient in the features follows by one matrix product. The distances are
    changed in place, and nothing of the size of the pairs is kept.
    """

    @staticmethod
    def forward(
        x: Float[Tensor, "n dim"], labels: Int[Tensor, " n"], margin: float, negatives: Negatives
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, "n dim"]]:
        """Returns the loss, the share of negative pairs within the margin, and the gradient in the features."""
        squares = x.square().sum(1)
        gap = (x @ x.mT).mul_(-2).add_(squares.unsqueeze(1)).add_(squares).clamp_min_(0).add_(EPS).sqrt_()
        same = labels.unsqueeze(0) == labels.unsqueeze(1)
        hinge = (margin - gap).clamp_min_(0).masked_fill_(same, 0)
        active, others = hinge.count_nonzero(), same.numel() - same.sum()
        counted = active if negatives == "active" else others
        if negatives == "hardest":
            nearest = _nearest(gap, same)
            hinge, counted = hinge.mul_(nearest), nearest.sum()
        counted, pairs = counted.clamp_min(1), (same.sum() - len(x)).clamp_min(1)
        loss = hinge.square().sum() / counted + gap.square().mul_(same).fill_diagonal_(0).sum() / pairs
        slope = hinge.div_(gap).div_(-counted)
        if negatives == "hardest":
            slope = (slope + slope.mT) / 2  # otherwise it is symmetric
        slope = torch.where(same, 1 / pairs.to(x.dtype), slope).fill_diagonal_(0)
        return loss / 4, active / others.clamp_min(1), slope.sum(1, keepdim=True) * x - slope @ x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:  # noqa: ANN401 - of torch
        """Keeps what the backward pass needs."""
        x, labels, *ctx.settings = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(x, labels, output[2])

    @staticmethod
    def backward(ctx: Any, above: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - as above
        """Returns the gradient in the features; computed plainly if a second derivative is asked for."""
        x, labels, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():
            loss = _plain(x, labels, *ctx.settings)
            return *torch.autograd.grad(loss, x, above, create_graph=True), None, None, None
        return gradient * above, None, None, None


def _plain(x: Tensor, labels: Tensor, margin: float, negatives: Negatives) -> Float[Tensor, ""]:
    """Returns the loss of :class:`AllPairs` by operations that have all derivatives."""
    gap, (positive, negative) = distances(x, x), same_class(labels)
    hinge = (margin - gap).clamp_min(0)
    if negatives == "hardest":
        negative = _nearest(gap, ~negative)
    elif negatives == "active":
        negative = negative & (hinge > 0)
    return (mean_where(gap.square(), positive) + mean_where(hinge.square(), negative)) / 4


def _nearest(gap: Tensor, same: Tensor) -> Tensor:
    """Returns the mask of the pairs of an image and its nearest image of another class."""
    apart = gap.masked_fill(same, torch.inf)
    return ~same & (apart <= apart.amin(1, keepdim=True))
