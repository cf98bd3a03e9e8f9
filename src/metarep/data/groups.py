"""Groups: draw support and query of a class from different groups, so that no typeface is in both."""

import torch
from torch import Generator, Tensor

from metarep.data.labels import Labels

REDRAWS = 100  # random orders of the groups that are tried before one that can be cut is constructed


def apart(labels: Labels, groups: Tensor, classes: Tensor, shots: int, queries: int, generator: Generator) -> Tensor:
    """Draw support and query images of classes so that the two share no group.

    The groups of a class are put into a random order and cut once, as near the middle as leaves enough images on both
    sides. Support comes from the groups before the cut and queries from those after it. An order that has no such cut
    is drawn again.

    Args:
        labels: the labels; each class drawn here can give such a task (``Labels.can_give``).
        groups: the group of each image of the bank, on the CPU.
        classes: the classes of each task, ``(task, ways)``.
        shots, queries: support and query images of each class.
        generator: a CPU generator.

    Returns:
        Positions within each class, support before query: ``(task, ways, shots + queries)``.
    """
    size = int(labels.counts.max())
    slot = torch.arange(size)
    filled = slot < labels.counts[classes].unsqueeze(-1)  # task ways size: classes are padded to the largest
    within = (labels.starts[classes].unsqueeze(-1) + slot).clamp_max(len(labels.rows) - 1)
    group = groups[labels.rows[within]]
    n_groups = int(group.max()) + 1
    sizes = torch.zeros(*group.shape[:2], n_groups, dtype=torch.long).scatter_add_(-1, group, filled.long())
    key = torch.rand(sizes.shape, generator=generator)
    order, fits = _cuts(sizes, key, shots, queries)
    for _ in range(REDRAWS):
        if fits.any(-1).all():
            break
        again = torch.rand(sizes.shape, generator=generator)
        key = torch.where(fits.any(-1, keepdim=True), key, again)
        order, fits = _cuts(sizes, key, shots, queries)
    if not fits.any(-1).all():
        for task, way in (~fits.any(-1)).nonzero().tolist():
            key[task, way] = _divided(sizes[task, way], shots, queries, generator)
        order, fits = _cuts(sizes, key, shots, queries)
    not_empty = (sizes > 0).sum(-1, keepdim=True)
    distance = (torch.arange(1, n_groups + 1) - not_empty / 2).abs().masked_fill(~fits, float("inf"))
    cut = distance.argmin(-1, keepdim=True)  # the last group of the support side
    rank = torch.empty_like(order).scatter_(-1, order, torch.arange(n_groups).expand_as(order))
    before_cut = rank.gather(-1, group) <= cut
    draw = torch.rand(group.shape, generator=generator)
    support = draw.masked_fill(~(filled & before_cut), 2).argsort(-1)[..., :shots]
    query = draw.masked_fill(~(filled & ~before_cut), 2).argsort(-1)[..., :queries]
    return torch.cat([support, query], dim=-1)


def _divided(sizes: Tensor, shots: int, queries: int, generator: Generator) -> Tensor:
    """Construct sort keys of the groups of one class, so that their order can be cut, where hardly any order can.

    It solves the subset-sum problem: which groups together have enough images for support and leave enough for the
    queries.

    Args:
        sizes: the number of images in each group. The class can give such a task.
        shots, queries: support and query images of the class.
        generator: a CPU generator.

    Returns:
        For each group 0, before the cut, or 1, after it.
    """
    drawn = torch.randperm(len(sizes), generator=generator).tolist()
    sums = [1]  # bit k of sums[i]: some of the first i groups have k images together
    for group in drawn:
        sums.append(sums[-1] | sums[-1] << int(sizes[group]))
    missing = next(n for n in range(shots, int(sizes.sum()) - queries + 1) if sums[-1] >> n & 1)
    key = torch.ones(len(sizes))
    for group, without in zip(reversed(drawn), reversed(sums[:-1]), strict=True):
        if not without >> missing & 1:  # the groups before this one cannot have so many, so it is needed
            key[group] = 0.0
            missing -= int(sizes[group])
    return key


def apart_at(groups: Tensor, order: Tensor, drawn: Tensor, shots: int) -> Tensor:
    """Replace the queries whose group is in the support of their class by other queries of that class.

    Args:
        groups: the group of each member of a class, in the order in which it was drawn, ``(task, ways, member)``.
        order: the order that is wanted, as positions in that order; the first ``shots`` are support.
        drawn: an order without such queries, for classes in which no query can stay.
        shots: support images of each class.

    Returns:
        The order to take, of the same shape. A query may appear in it several times.
    """
    ordered = groups.gather(-1, order)
    conflicts = (ordered[..., shots:].unsqueeze(-1) == ordered[..., :shots].unsqueeze(-2)).any(-1)
    kept = conflicts.sort(dim=-1, stable=True).indices  # queries that share no group with the support come first
    count = (~conflicts).sum(-1, keepdim=True)
    query = order[..., shots:].gather(-1, kept.gather(-1, torch.arange(kept.shape[-1]) % count.clamp_min(1)))
    return torch.where(count > 0, torch.cat([order[..., :shots], query], dim=-1), drawn)


def _cuts(sizes: Tensor, key: Tensor, shots: int, queries: int) -> tuple[Tensor, Tensor]:
    """Sort the groups of each class by ``key``, and mark those after which a cut leaves enough images on both sides.

    Returns:
        The groups in order, empty ones last; and a boolean for each position in that order.
    """
    order = key.masked_fill(sizes == 0, 2).argsort(-1)
    images = sizes.gather(-1, order).cumsum(-1)  # in the first 1, 2, ... groups
    return order, (images >= shots) & (images[..., -1:] - images >= queries)
