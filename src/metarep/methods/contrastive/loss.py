"""Contrastive losses of two views of each image, computed in float32 or float64."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

CHUNK = 4096  # rows of similarities at a time; beyond this many, the backward pass computes them a second time
KEYS = {"cpu": 2**11}  # negatives at a time, whose similarities stay in the cache of a core
KEYS_ELSEWHERE = 2**16


def nt_xent(
    first: Float[Tensor, "n dim"], second: Float[Tensor, "n dim"], temperature: float, *, chunk: int = CHUNK
) -> Float[Tensor, ""]:
    """NT-Xent: each of the 2n views must find its partner among the other 2n - 1, by cross-entropy of cosines.

    Chen, Kornblith, Norouzi, Hinton, A Simple Framework for Contrastive Learning of Visual Representations, 2020. One
    masked matrix; pairs are never listed, which would take memory that grows with n**3. Trap: a view's similarity with
    itself must be minus infinity; zero, or leaving it, gives a value that looks right. Untrained features give about
    ``log(2n - 1)``.

    Args:
        first, second: two views of each image, in the same order; any length, they are normalised here.
        temperature: divides the cosines.
        chunk: rows worked on at a time. More than that many views cost ``chunk * 2n`` numbers of memory instead of
            ``(2n)**2``, and a second matrix product on the way back; value and gradient are the same.

    >>> axes = torch.eye(4)
    >>> round(nt_xent(axes, axes, 0.05).item(), 4)
    0.0
    """
    rows = functional.normalize(_wide(torch.cat([first, second])), dim=-1)
    return _mean_over_rows(_row_losses, rows, temperature, chunk)


def sup_con(
    first: Float[Tensor, "n dim"],
    second: Float[Tensor, "n dim"],
    labels: Int[Tensor, " n"],
    temperature: float,
    *,
    chunk: int = CHUNK,
) -> Float[Tensor, ""]:
    """SupCon: each of the 2n views must find all other views of its class, by the mean of their log-probabilities.

    Khosla et al., Supervised Contrastive Learning, 2020, in the form that they call L_out: the mean over the positives
    is outside of the logarithm. Here it is also the mean over views, and not their sum. If every image is a class of
    its own, this is :func:`nt_xent`.

    The mean cosine with the positives comes from the sum of the features of each class, so no mask of n x n is made.
    Trap: a view is not a positive of itself. Counting it would lower the loss without teaching anything.

    Args:
        first, second: two views of each image, in the same order; any length, they are normalised here.
        labels: the class of each image.
        temperature: divides the cosines.
        chunk: see :func:`nt_xent`.

    Returns:
        The mean loss of the views. It is lowest where each class is one point and classes are far apart.

    >>> axes = torch.eye(2)
    >>> round(sup_con(axes, axes, torch.tensor([0, 1]), 1.0).item(), 4)  # log(e + 2) - 1
    0.5514
    >>> round(sup_con(axes, axes, torch.tensor([0, 0]), 1.0).item(), 4)  # log(e + 2) - 1 / 3
    1.2181
    """
    rows = functional.normalize(_wide(torch.cat([first, second])), dim=-1)
    ordered = labels.sort().values
    group = torch.searchsorted(ordered, labels)  # one number for each class, found without a host synchronisation
    count = torch.searchsorted(ordered, labels, right=True) - group
    sums = torch.zeros_like(rows[: len(labels)]).index_add(0, group, rows[: len(labels)] + rows[len(labels) :])
    positives = (rows * (sums[group].repeat(2, 1) - rows)).sum(-1) / (2 * count - 1).repeat(2)
    return _mean_over_rows(_row_log_sums, rows, temperature, chunk) - positives.mean() / temperature


def info_nce(
    queries: Float[Tensor, "n dim"],
    keys: Float[Tensor, "n dim"],
    negatives: Float[Tensor, "m dim"],
    temperature: float,
    valid: Bool[Tensor, " m"] | None = None,
) -> Float[Tensor, ""]:
    """InfoNCE with separate negatives: each query must find its key among the negatives, by cross-entropy of cosines.

    He, Fan, Wu, Xie, Girshick, Momentum Contrast for Unsupervised Visual Representation Learning, 2020. The gradient
    is computed together with the loss, from a part of the negatives at a time, so that no similarity is kept.
    If the negatives need a gradient, all similarities are in memory, and so they are for second derivatives.

    Args:
        queries, keys: two views of each image, in the same order. All rows must be on the unit sphere.
        negatives: keys of other images, also on the unit sphere.
        temperature: divides the cosines.
        valid: which negatives count; None for all of them.

    Returns:
        The mean loss of the queries.

    >>> axes = torch.eye(2)
    >>> round(info_nce(axes[:1], axes[:1], axes[1:], temperature=1.0).item(), 4)  # log(1 + exp(-1))
    0.3133
    """
    queries, keys, negatives = _wide(queries), _wide(keys), _wide(negatives)
    if negatives.requires_grad or not len(negatives):
        return _from_all(queries, keys, negatives, temperature, valid)
    return _InfoNCE.apply(queries, keys, negatives, temperature, valid)


def negative_cosine(predicted: Float[Tensor, "n dim"], target: Float[Tensor, "n dim"]) -> Float[Tensor, ""]:
    """The mean of ``2 - 2 cos``, the squared distance of normalised rows: BYOL's loss of one direction.

    >>> negative_cosine(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    tensor(2.)
    """
    predicted, target = functional.normalize(_wide(predicted), dim=-1), functional.normalize(_wide(target), dim=-1)
    return (2 - 2 * (predicted * target).sum(-1)).mean()


def _from_all(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float, valid: Tensor | None) -> Tensor:
    """InfoNCE with all similarities in memory, differentiable in every row any number of times."""
    scaled = queries / temperature
    positive, others = (scaled * keys).sum(-1), scaled @ negatives.mT
    if valid is not None:
        others = others.masked_fill(~valid, -torch.inf)
    return (torch.logaddexp(others.logsumexp(1), positive) - positive).mean()


class _InfoNCE(torch.autograd.Function):
    """InfoNCE and its gradient, by one pass over the negatives that keeps the largest similarity so far."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - what torch passes
        queries: Tensor,
        keys: Tensor,
        negatives: Tensor,
        temperature: float,
        valid: Tensor | None,
    ) -> Tensor:
        scaled = queries / temperature
        positive = (scaled * keys).sum(-1, keepdim=True)
        most, total, mean = positive, torch.ones_like(positive), keys.clone()
        at_once = KEYS.get(queries.device.type, KEYS_ELSEWHERE)
        for start in range(0, len(negatives), at_once):
            part = negatives[start : start + at_once]
            similarity = scaled @ part.mT
            if valid is not None and not (valid.device.type == "cpu" and valid[start : start + at_once].all()):
                similarity.masked_fill_(~valid[start : start + at_once], -torch.inf)
            before, most = most, torch.maximum(most, similarity.amax(1, keepdim=True))
            similarity.sub_(most).exp_()
            kept = (before - most).exp_()
            total.mul_(kept).add_(similarity.sum(1, keepdim=True))
            if ctx.needs_input_grad[0]:
                mean.mul_(kept).addmm_(similarity, part)
        losses = total.log() + most - positive
        ctx.temperature = temperature
        ctx.save_for_backward(queries, keys, negatives, valid, mean / total, losses)
        return losses.mean()

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - as above
        queries, keys, negatives, valid, mean, losses = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():  # create_graph: a second derivative is requested
            loss = _from_all(queries, keys, negatives, ctx.temperature, valid)
            inputs = [rows for rows, own in zip((queries, keys), wanted, strict=True) if own]
            gradients = list(torch.autograd.grad(loss, inputs, above, create_graph=True))
            return *(gradients.pop(0) if own else None for own in wanted), None, None, None
        share = above / (ctx.temperature * len(queries))
        of_keys = queries * torch.expm1(-losses) * share if wanted[1] else None
        return (mean - keys) * share if wanted[0] else None, of_keys, None, None, None


def _mean_over_rows(total: Callable[..., Tensor], rows: Tensor, temperature: float, chunk: int) -> Tensor:
    """The mean of a loss over all rows. ``total`` sums it over a chunk; the backward pass computes chunks again."""
    if len(rows) <= chunk:
        return total(rows, 0, len(rows), temperature) / len(rows)
    parts = [
        checkpoint(
            total, rows, start, min(chunk, len(rows) - start), temperature,
            use_reentrant=False, preserve_rng_state=False,
        )
        for start in range(0, len(rows), chunk)
    ]  # fmt: skip
    return torch.stack(parts).sum() / len(rows)


def _row_logits(rows: Tensor, start: int, length: int, temperature: float) -> Tensor:
    """The cosines of ``length`` rows from ``start`` on with all rows, over the temperature; never with themselves."""
    logits = rows[start : start + length] @ rows.mT / temperature
    logits.diagonal(start).fill_(-torch.inf)
    return logits


def _row_log_sums(rows: Tensor, start: int, length: int, temperature: float) -> Tensor:
    """The summed logarithms of the denominators of ``length`` rows from ``start`` on."""
    return _row_logits(rows, start, length, temperature).logsumexp(1).sum()


def _row_losses(rows: Tensor, start: int, length: int, temperature: float) -> Tensor:
    """The summed loss of ``length`` rows from ``start`` on; row i's partner is half the rows away."""
    logits = _row_logits(rows, start, length, temperature)
    partner = (torch.arange(start, start + length, device=rows.device) + len(rows) // 2) % len(rows)
    return functional.cross_entropy(logits, partner, reduction="sum")


def _wide(rows: Tensor) -> Tensor:
    """Rows in float32; in float64 if they are so already."""
    return rows if rows.dtype == torch.float64 else rows.float()
