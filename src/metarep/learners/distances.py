"""Distances between features, and the loss of a task: what learners and training losses are made of."""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

EPS = 1e-6  # under the root of a squared distance


def squared_distances(x: Float[Tensor, "*task a dim"], y: Float[Tensor, "*task b dim"]) -> Float[Tensor, "*task a b"]:
    """Squared Euclidean distances between all rows, by one matrix product; never below zero.

    The product loses digits where points lie much closer to each other than to the origin; subtract a common mean
    first if that matters.

    >>> import torch
    >>> squared_distances(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0], [3.0, 4.0]])).tolist()
    [[25.0, 0.0]]
    """
    squares = x.square().sum(-1, keepdim=True) + y.square().sum(-1).unsqueeze(-2)
    return (squares - 2 * x @ y.mT).clamp_min(0)


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
