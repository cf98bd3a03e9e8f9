"""Batch-all triplets: the loss of all triplets of a batch and its gradient, in memory that grows with n**2."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from metarep.errors import MetarepError

SMALLEST = 1e-7  # a triplet with a smaller loss does not count
NUMBERS = {"cpu": 2**16}  # of a block of rows: so many stay in the cache of a core
ELSEWHERE = 2**24


def all_triplets(
    gap: Float[Tensor, "n n"], positive: Bool[Tensor, "n n"], negative: Bool[Tensor, "n n"], margin: float | None
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The mean loss of all triplets of a batch that have a loss.

    The triplets are never in memory together. Anchors are sorted by their number of positives, so the anchors that
    have a first, a second, ... positive are the first rows of one matrix. Each such positive is compared with all
    negatives at once, a block of rows at a time, and what is kept of it is the weight of each distance in the
    gradient.

    Args:
        gap: distances between all images.
        positive, negative: the masks of the positive and of the negative pairs.
        margin: in units of the distance. None takes the soft margin ``log(1 + exp(d_positive - d_negative))``.

    Returns:
        The mean loss, and the share of triplets that have a loss ("active"), 0 to 1.

    Raises:
        MetarepError: in the backward pass, a graph of the gradient is asked for (``create_graph``) and the margin is
            None. With a margin the second derivative in a distance is zero, and without it is not computed.

    >>> labels = torch.tensor([0, 0, 1])
    >>> same = labels.unsqueeze(1) == labels
    >>> gap = torch.tensor([[0.0, 3.0, 4.0], [3.0, 0.0, 1.0], [4.0, 1.0, 0.0]])
    >>> loss, active = all_triplets(gap, same & ~torch.eye(3).bool(), ~same, margin=0.5)
    >>> loss.item(), active.item()
    (2.5, 0.5)
    """
    wide = gap if gap.dtype == torch.float64 else gap.float()
    loss, active = _AllTriplets.apply(wide, positive, negative, margin)
    triplets = (positive.sum(1) * negative.sum(1)).sum()
    return loss, active / triplets.clamp_min(1)


class _AllTriplets(torch.autograd.Function):
    """The mean loss of the triplets that have one, and their number."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - what torch passes
        gap: Tensor,
        positive: Tensor,
        negative: Tensor,
        margin: float | None,
    ) -> tuple[Tensor, Tensor]:
        each = positive.sum(1)
        order = each.argsort(descending=True, stable=True)
        rows = gap.masked_fill(~negative, torch.inf)[order]  # no positive is beyond an infinite distance
        anchor, column = positive.nonzero(as_tuple=True)  # the positives of an anchor follow one another
        position = (
            order.argsort()[anchor],
            torch.arange(len(anchor), device=gap.device) - (each.cumsum(0) - each)[anchor],
        )
        near = gap.new_zeros(len(gap), int(each.max()))
        near[position] = gap[anchor, column]
        weight, own = torch.zeros_like(rows), torch.zeros_like(near)
        have = (each.unsqueeze(1) > torch.arange(near.shape[1], device=gap.device)).sum(0).tolist()
        height = max(1, NUMBERS.get(gap.device.type, ELSEWHERE) // max(1, len(gap)))
        sums, counts = [gap.new_zeros(())], [gap.new_zeros(())]
        for start in range(0, len(rows), height):
            for slot, count in enumerate(have):
                block = slice(start, min(start + height, count))
                if block.stop <= start:
                    break
                apart = near[block, slot : slot + 1] - rows[block]
                value = functional.softplus(apart) if margin is None else apart.add_(margin)
                value = functional.threshold(value, SMALLEST, 0, inplace=True)
                counted = value.sign()
                slope = counted if margin is not None else -torch.expm1(-value)
                weight[block] -= slope
                own[block, slot] = slope.sum(1)
                sums.append(value.sum())
                counts.append(counted.sum())
        active = torch.stack(counts).sum()
        whole = torch.empty_like(weight).index_copy_(0, order, weight)
        whole[anchor, column] = own[position]
        ctx.save_for_backward(whole, active)
        ctx.margin = margin
        ctx.mark_non_differentiable(active)
        return torch.stack(sums).sum() / active.clamp_min(1), active

    @staticmethod
    def backward(ctx: Any, above: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - as above
        if ctx.margin is None and torch.is_grad_enabled():
            raise MetarepError("batch-all triplets with a soft margin have no second derivative here; set a margin")
        weight, active = ctx.saved_tensors
        return weight * (above / active.clamp_min(1)), None, None, None
