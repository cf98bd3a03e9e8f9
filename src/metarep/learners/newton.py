"""Logistic regression on many rows: Newton's method, whose steps are found by conjugate gradients."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

STEPS = 60  # at most; a dozen are usual
FORCING = 0.3  # a step is solved until its residual is this share of what it was
INNER = 60  # products with the Hessian for one step, at most
ENOUGH, NOISE = (
    1e-4,
    1e-6,
)  # a step must lower the loss by a share of what its slope says, or rise by no more than rounding
SHORTEST = 1e-6  # of a step
BETTER, PATIENCE = 0.9, 4  # so many steps may pass in which the gradient does not become shorter by this factor
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
) -> tuple[Float[Tensor, "task rank ways"], Tensor]:
    """Minimises the loss of :func:`metarep.learners.logistic.logistic` by truncated Newton steps.

    A step solves the Newton equations by conjugate gradients, preconditioned by the diagonal of the Hessian, as far as
    it pays off (Dembo and Steihaug, Truncated-Newton Algorithms for Large-Scale Unconstrained Optimization, 1983). A
    product with the Hessian costs two matrix products, as a gradient does. The step is halved until it lowers the loss.
    One more step is taken after the gradient is short enough. The method also ends where the gradient no longer becomes
    shorter, because rounding allows no better.

    Args:
        rows, targets, strength, tolerance: see :func:`metarep.learners.logistic.logistic`.
        weigh: the weight of each row.
        start: the weights to begin with.
        product: multiplies matrices of all tasks, of which the left one may be shared.
        length: the length of a gradient, the largest of all tasks.
        most: largest number of steps.

    Returns:
        The weights, and the length of the last gradient. It is above ``tolerance`` if that was not reached.

    >>> x, ones = torch.eye(2).unsqueeze(0), torch.ones(1, 2, 1)
    >>> length = lambda gradient: gradient.square().sum().sqrt()
    >>> at = newton(x, x, 1.0, ones, torch.zeros(1, 2, 2), torch.matmul, length, tolerance=1e-6, most=20)
    >>> at[0].round(decimals=3), bool(at[1] < 1e-6)
    (tensor([[[ 0.3370, -0.3370],
             [-0.3370,  0.3370]]]), True)
    """
    squares, weights, logits = rows.square().mT, start, product(rows, start)
    loss, best, waited = _loss(logits, targets, weigh, weights, strength), torch.inf, 0
    for step in range(most + 1):
        shares = logits.softmax(-1)
        gradient = _balanced(product(rows.mT, (shares - targets) * weigh) + strength * weights)
        left = length(gradient)
        best, waited = (float(left), 0) if left < BETTER * best else (best, waited + 1)
        close = bool(left < tolerance)
        if not close and (step == most or waited > PATIENCE or not left.isfinite()):
            break
        diagonal = product(squares, weigh * shares * (1 - shares)) + strength
        change, moved = _direction(rows, weigh, shares, strength, gradient, diagonal, product)
        slope = ENOUGH * _dot(gradient, change)
        pace = torch.ones_like(loss)
        while True:
            new, new_logits = weights + pace * change, logits + pace * moved
            new_loss = _loss(new_logits, targets, weigh, new, strength)
            lower = new_loss <= loss + pace * slope + NOISE * loss
            if bool((lower | (pace < SHORTEST)).all()):
                break
            pace = torch.where(lower, pace, pace / 2)
        weights, logits = torch.where(lower, new, weights), torch.where(lower, new_logits, logits)
        loss = torch.where(lower, new_loss, loss)
        if close:
            break
    return weights, left


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
    scaled = along = _balanced(residual / diagonal)
    size = _dot(residual, scaled)
    goal, going = FORCING**2 * size, size > 0
    for _ in range(INNER):
        logits = product(rows, along)
        bent = weigh * shares * (logits - (shares * logits).sum(-1, keepdim=True))
        curved = product(rows.mT, bent) + strength * along
        curvature = _dot(along, curved)
        going = going & (curvature > 0)  # rounding may leave no curvature
        far = torch.where(going, size / curvature, 0.0)
        change, moved, residual = change + far * along, moved + far * logits, residual - far * curved
        scaled = _balanced(residual / diagonal)
        last, size = size, _dot(residual, scaled)
        going = going & (size > goal)
        if not bool(going.any()):
            break
        along = scaled + torch.where(going, size / last, 0.0) * along
    return change, moved


def _balanced(weights: Float[Tensor, "task rank ways"]) -> Float[Tensor, "task rank ways"]:
    """Returns the part of weights that sums to zero over the classes, as the solution does.

    The rest changes no probability, and has hardly any curvature, so rounding would drive it far away.
    """
    return weights - weights.mean(-1, keepdim=True)


def _loss(
    logits: Tensor, targets: Tensor, weigh: Tensor, weights: Tensor, strength: float
) -> Float[Tensor, "task 1 1"]:
    """Returns the loss of each task: the weighted cross-entropy, and the regularisation."""
    losses = logits.logsumexp(-1, keepdim=True) - (targets * logits).sum(-1, keepdim=True)
    return (weigh * losses).sum((1, 2), keepdim=True) + strength / 2 * _dot(weights, weights)


def _dot(left: Float[Tensor, "task n m"], right: Float[Tensor, "task n m"]) -> Float[Tensor, "task 1 1"]:
    """Returns the inner product of each task."""
    return (left * right).sum((1, 2), keepdim=True)
