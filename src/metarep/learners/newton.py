"""Logistic regression on many rows: Newton's method, whose steps are found by conjugate gradients."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

FORCING = 0.3  # a step is solved until its residual is this share of what it was
INNER = 60  # products with the Hessian for one step, at most
ENOUGH, NOISE = (
    1e-4,
    1e-6,
)  # a step must lower the loss by a share of what its slope says, or rise by no more than rounding
SHORTEST = 1e-6  # of a step
Product = Callable[[Tensor, Tensor], Tensor]


def newton(
    rows: Float[Tensor, "#task n rank"],
    targets: Float[Tensor, "#task n ways"],
    strength: float,
    weigh: Float[Tensor, "#task n one"],
    start: Float[Tensor, "task rank ways"],
    product: Product,
    length: Callable[[Tensor], Tensor],
    *,
    tolerance: float,
    most: int,
) -> tuple[Float[Tensor, "task rank ways"], Float[Tensor, "task rank ways"], Tensor]:
    """Minimises the loss of :func:`metarep.learners.logistic.logistic` by truncated Newton steps.

    A step solves the Newton equations by conjugate gradients, preconditioned by the diagonal of the Hessian, as far as
    it pays off (Dembo and Steihaug, Truncated-Newton Algorithms for Large-Scale Unconstrained Optimization, 1983). A
    product with the Hessian costs two matrix products, as a gradient does. The step is halved until it lowers the loss.

    Args:
        rows, targets, strength, tolerance, most: see :func:`metarep.learners.logistic.logistic`.
        weigh: the weight of each row.
        start: the weights to begin with.
        product: multiplies matrices of all tasks, of which the left one may be shared.
        length: the length of a gradient, the largest of all tasks.

    Returns:
        The weights, their gradient, and its length. It is above ``tolerance`` if ``most`` steps were not enough.

    >>> x, ones = torch.eye(2).unsqueeze(0), torch.ones(1, 2, 1)
    >>> length = lambda gradient: gradient.square().sum().sqrt()
    >>> at = newton(x, x, 1.0, ones, torch.zeros(1, 2, 2), torch.matmul, length, tolerance=1e-6, most=20)
    >>> at[0].round(decimals=3), bool(at[2] < 1e-6)
    (tensor([[[ 0.3370, -0.3370],
             [-0.3370,  0.3370]]]), True)
    """
    squares, weights, logits = rows.square().mT, start, product(rows, start)
    loss = _loss(logits, targets, weigh, weights, strength)
    for step in range(most + 1):
        shares = logits.softmax(-1)
        gradient = product(rows.mT, (shares - targets) * weigh) + strength * weights
        left = length(gradient)
        if left < tolerance or step == most:
            break
        diagonal = product(squares, weigh * shares * (1 - shares)) + strength
        change, moved = _direction(rows, weigh, shares, strength, gradient, diagonal, product)
        slope = ENOUGH * _dot(gradient, change)
        pace = torch.ones_like(loss)
        while True:
            new, new_logits = weights + pace * change, logits + pace * moved
            new_loss = _loss(new_logits, targets, weigh, new, strength)
            high = (new_loss > loss + pace * slope + NOISE * loss) & (pace > SHORTEST)
            if not high.any():
                break
            pace = torch.where(high, pace / 2, pace)
        weights, logits, loss = new, new_logits, new_loss
    return weights, gradient, left


def _direction(
    rows: Tensor,
    weigh: Tensor,
    shares: Float[Tensor, "task n ways"],
    strength: float,
    gradient: Float[Tensor, "task rank ways"],
    diagonal: Float[Tensor, "task rank ways"],
    product: Product,
) -> tuple[Float[Tensor, "task rank ways"], Float[Tensor, "task n ways"]]:
    """Returns a step that nearly solves the Newton equations, and the change of the logits that it makes."""
    change, moved, residual = torch.zeros_like(gradient), torch.zeros_like(shares), -gradient
    scaled = along = residual / diagonal
    size = _dot(residual, scaled)
    goal = FORCING**2 * size
    for _ in range(INNER):
        logits = product(rows, along)
        bent = weigh * shares * (logits - (shares * logits).sum(-1, keepdim=True))
        curved = product(rows.mT, bent) + strength * along
        far = size / _dot(along, curved).clamp_min(torch.finfo(size.dtype).tiny)
        change, moved, residual = change + far * along, moved + far * logits, residual - far * curved
        scaled = residual / diagonal
        last, size = size, _dot(residual, scaled)
        if bool((size <= goal).all()):
            break
        along = scaled + size / last.clamp_min(torch.finfo(size.dtype).tiny) * along
    return change, moved


def _loss(
    logits: Tensor, targets: Tensor, weigh: Tensor, weights: Tensor, strength: float
) -> Float[Tensor, "task 1 1"]:
    """Returns the loss of each task: the weighted cross-entropy, and the regularisation."""
    losses = logits.logsumexp(-1, keepdim=True) - (targets * logits).sum(-1, keepdim=True)
    return (weigh * losses).sum((1, 2), keepdim=True) + strength / 2 * _dot(weights, weights)


def _dot(left: Float[Tensor, "task n m"], right: Float[Tensor, "task n m"]) -> Float[Tensor, "task 1 1"]:
    """Returns the inner product of each task."""
    return (left * right).sum((1, 2), keepdim=True)
