"""Open set: how well a score tells queries of the known classes of a task from queries of unknown classes."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

RECALL = 0.95  # share of known queries that are accepted, for the false alarms


def auroc(known: Float[Tensor, "*task n"], unknown: Float[Tensor, "*task m"]) -> Float[Tensor, "*task"]:
    """The area under the receiver operating characteristic: how often a known query scores higher than an unknown one.

    It is the share of all pairs of a known and an unknown query in which the known one has the higher score; a tie
    counts half. So 0.5 is chance, and 1 a perfect separation. Hanley & McNeil, The Meaning and Use of the Area under a
    Receiver Operating Characteristic (ROC) Curve, 1982.

    Args:
        known: scores of the queries of known classes; the higher, the more familiar.
        unknown: scores of the queries of unknown classes.

    Returns:
        The area for each task, from 0 to 1; NaN if one of its scores is NaN.

    >>> auroc(torch.tensor([0.9, 0.4]), torch.tensor([0.4, 0.1])).item()
    0.875
    """
    low = unknown.sort(-1).values
    each = known.contiguous()
    below = torch.searchsorted(low, each) + torch.searchsorted(low, each, right=True)  # ties are in one of the two
    area = below.sum(-1) / (2 * known.shape[-1] * unknown.shape[-1])
    return area.masked_fill(_lost(known, unknown), float("nan"))


def false_alarms(
    known: Float[Tensor, "*task n"], unknown: Float[Tensor, "*task m"], recall: float = RECALL
) -> Float[Tensor, "*task"]:
    """The share of unknown queries that are taken for known where at least ``recall`` of the known ones are accepted.

    The threshold is the highest score at which so many known queries of the task are accepted. Hendrycks & Gimpel, A
    Baseline for Detecting Misclassified and Out-of-Distribution Examples, 2017; often called FPR95.

    Args:
        known: scores of the queries of known classes; the higher, the more familiar.
        unknown: scores of the queries of unknown classes.
        recall: from 0 to 1.

    Returns:
        The share for each task, from 0 to 1; NaN if one of its scores is NaN.

    >>> false_alarms(torch.tensor([0.9, 0.8, 0.7, 0.2]), torch.tensor([0.75, 0.1]), recall=0.75).item()
    0.5
    """
    refused = int(known.shape[-1] * (1 - recall) + 1e-6)  # 1 - 0.95 is a little less than 0.05
    threshold = known.sort(-1).values[..., refused, None]
    return (unknown >= threshold).float().mean(-1).masked_fill(_lost(known, unknown), float("nan"))


def _lost(known: Float[Tensor, "*task n"], unknown: Float[Tensor, "*task m"]) -> Bool[Tensor, "*task"]:
    """Whether a task has a score that is NaN, which sorts above all others."""
    return known.isnan().any(-1) | unknown.isnan().any(-1)
