"""Groups: support and query of a class that share none, such as two drawings in the same typeface."""

import torch
from torch import Generator, Tensor

from metarep.labels import Labels

REDRAWS = 100  # of the order of a class's groups, before an order is made that can be cut


def apart(labels: Labels, groups: Tensor, classes: Tensor, shots: int, queries: int, generator: Generator) -> Tensor:
    """Places within each class for support, then query, whose groups do not meet.

    The groups of a class are put in random order and cut once, as near the middle as leaves enough images on both
    sides; support comes from the first part and queries from the second. An order that cannot be cut so is redrawn.
    """
    size = int(labels.counts.max())
    slot = torch.arange(size)
    real = slot < labels.counts[classes].unsqueeze(-1)  # task ways size
    within = (labels.starts[classes].unsqueeze(-1) + slot).clamp_max(len(labels.rows) - 1)
    group = groups[labels.rows[within]]
    kinds = int(group.max()) + 1
    onehot = torch.zeros(*group.shape[:2], kinds, dtype=torch.long).scatter_add_(-1, group, real.long())
    order = torch.rand(onehot.shape, generator=generator)
    rank, fits = _cuts(onehot, order, shots, queries)
    for _ in range(REDRAWS):
        if fits.any(-1).all():
            break
        again = torch.rand(onehot.shape, generator=generator)
        order = torch.where(fits.any(-1, keepdim=True), order, again)
        rank, fits = _cuts(onehot, order, shots, queries)
    if not fits.any(-1).all():
        for task, way in (~fits.any(-1)).nonzero().tolist():
            order[task, way] = _divided(onehot[task, way], shots, queries, generator)
        rank, fits = _cuts(onehot, order, shots, queries)
    many = (onehot > 0).sum(-1, keepdim=True)
    distance = (torch.arange(1, kinds + 1) - many / 2).abs().masked_fill(~fits, float("inf"))
    cut = distance.argmin(-1, keepdim=True)  # the last group of the support side
    position = torch.empty_like(rank).scatter_(-1, rank, torch.arange(kinds).expand_as(rank))
    first = position.gather(-1, group) <= cut
    key = torch.rand(group.shape, generator=generator)
    support = key.masked_fill(~(real & first), 2).argsort(-1)[..., :shots]
    query = key.masked_fill(~(real & ~first), 2).argsort(-1)[..., :queries]
    return torch.cat([support, query], dim=-1)


def _divided(sizes: Tensor, shots: int, queries: int, generator: Generator) -> Tensor:
    """An order of groups of these sizes that can be cut, where hardly any can: some that hold together what is needed.

    Args:
        sizes: images in each group, of a class that can give them.
    """
    drawn = torch.randperm(len(sizes), generator=generator).tolist()
    sums = [1]  # as bits: how many images some of the first groups hold together
    for group in drawn:
        sums.append(sums[-1] | sums[-1] << int(sizes[group]))
    wanted = next(n for n in range(shots, int(sizes.sum()) - queries + 1) if sums[-1] >> n & 1)
    order = torch.ones(len(sizes))
    for group, before in zip(reversed(drawn), reversed(sums[:-1]), strict=True):
        if not before >> wanted & 1:
            order[group] = 0.0  # to the front
            wanted -= int(sizes[group])
    return order


def apart_at(groups: Tensor, order: Tensor, drawn: Tensor, shots: int) -> Tensor:
    """Members of each class in this order, without queries whose group is in the support.

    Args:
        groups: of each member, as it was drawn.
        order, drawn: ``task ways member``; ``drawn`` is the order that is known to be right.
    """
    there = groups.gather(-1, order)
    meets = (there[..., shots:].unsqueeze(-1) == there[..., :shots].unsqueeze(-2)).any(-1)
    kept = meets.sort(dim=-1, stable=True).indices  # those that may stay come first
    count = (~meets).sum(-1, keepdim=True)
    query = order[..., shots:].gather(-1, kept.gather(-1, torch.arange(kept.shape[-1]) % count.clamp_min(1)))
    return torch.where(count > 0, torch.cat([order[..., :shots], query], dim=-1), drawn)


def _cuts(onehot: Tensor, order: Tensor, shots: int, queries: int) -> tuple[Tensor, Tensor]:
    """The groups of each class in this order, and after which of them a cut leaves enough images on both sides."""
    rank = order.masked_fill(onehot == 0, 2).argsort(-1)
    ordered = onehot.gather(-1, rank).cumsum(-1)  # images in the first 1, 2, ... groups
    return rank, (ordered >= shots) & (ordered[..., -1:] - ordered >= queries)
