"""Distances between features, and the loss of a task: what learners and training losses are made of."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

EPS = 1e-6  # under the root of a squared distance


def squared_distances(x: Float[Tensor, "*task a dim"], y: Float[Tensor, "*task b dim"]) -> Float[Tensor, "*task a b"]:
    """Squared Euclidean distances between all rows, by one matrix product; never below zero.

    The mean of ``y`` is subtracted from both first. It changes no distance, and without it the product loses digits
    where points lie much closer to each other than to the origin.

    >>> import torch
    >>> squared_distances(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0], [3.0, 4.0]])).tolist()
    [[25.0, 0.0]]
    """
    mean = y.detach().mean(-2, keepdim=True)
    x, y = x - mean, y - mean
    squares = _squares(x).unsqueeze(-1) + _squares(y).unsqueeze(-2)
    return (squares - x @ (2 * y).mT).clamp_min(0)


def _squares(x: Float[Tensor, "*task n dim"]) -> Float[Tensor, "*task n"]:
    """Squared lengths. A norm makes no copy, but its derivatives at 0 are not those of the square."""
    return x.square().sum(-1) if x.requires_grad else torch.linalg.vector_norm(x, dim=-1).square()


def distances(
    x: Float[Tensor, "*task a dim"], y: Float[Tensor, "*task b dim"], eps: float = EPS
) -> Float[Tensor, "*task a b"]:
    """Euclidean distances; ``eps`` under the root keeps the gradient finite where two rows are equal."""
    return (squared_distances(x, y) + eps).sqrt()


def task_cross_entropy(
    logits: Float[Tensor, "task query ways"], query_y: Int[Tensor, "task query"]
) -> Float[Tensor, ""]:
    """Cross-entropy, the mean over queries and then over tasks.

    >>> import torch
    >>> round(task_cross_entropy(torch.zeros(3, 5, 4), torch.zeros(3, 5, dtype=torch.long)).item(), 4)  # log(4)
    1.3863
    """
    return functional.cross_entropy(logits.mT, query_y)
