"""Multinomial logistic regression on few rows, for many tasks at the same time, solved to a tolerance."""

import warnings

import torch
from jaxtyping import Float
from torch import Tensor

from metarep.learners.newton import STEPS, newton

TOLERANCE = 1e-5  # length of the gradient in the metric of the bound; logits are then exact to about 1e-4
MOST_STEPS = 2000
MANY_ROWS = 200  # from which Newton's method is faster


class NotSolvedWarning(UserWarning):
    """A solver stopped before it reached its tolerance."""


def orthogonal(
    rows: Float[Tensor, "task n dim"], weights: Float[Tensor, "task n"]
) -> tuple[Float[Tensor, "task n rank"], Float[Tensor, "task dim rank"]]:
    """Express rows in a basis in which their columns are orthogonal under the weights of the rows.

    The basis comes from the eigenvectors of the smaller Gram matrix, computed in float64. So 1,280 features of 50
    images become 50 values an image.

    Args:
        rows: rows of any rank.
        weights: weight of each row, above 0.

    Returns:
        ``(reduced, back)`` with ``reduced = rows @ back``. If ``w`` are weights of a classifier of ``reduced``, then
        ``back @ w`` are those of the same classifier of ``rows``. Directions of length zero are columns of zeros.

    >>> reduced, back = orthogonal(torch.tensor([[[3.0, 0.0], [0.0, 1.0]]]), torch.ones(1, 2))
    >>> (reduced.mT @ reduced)[0].round(decimals=4).abs()
    tensor([[1., 0.],
            [0., 9.]])
    """
    x, root = rows.double(), weights.double().sqrt().unsqueeze(-1)
    weighted = x * root
    wide = x.shape[-2] <= x.shape[-1]
    lengths, vectors = torch.linalg.eigh(weighted @ weighted.mT if wide else weighted.mT @ weighted)
    kept = lengths > 1e-10 * lengths[..., -1:]
    if wide:
        back = weighted.mT @ (vectors * torch.where(kept, lengths.clamp_min(1e-300).rsqrt(), 0.0).unsqueeze(-2))
    else:
        back = vectors * kept.unsqueeze(-2)
    return (x @ back).to(rows.dtype), back.to(rows.dtype)


def logistic(
    rows: Float[Tensor, "#task n rank"],
    targets: Float[Tensor, "#task n ways"],
    strength: float,
    weights: Float[Tensor, "#task n"],
    base: Float[Tensor, "one n"] | None = None,
    start: Float[Tensor, "one rank ways"] | None = None,
    *,
    tolerance: float = TOLERANCE,
    most: int = MOST_STEPS,
) -> Float[Tensor, "task rank ways"]:
    """Logistic regression: the weights that minimise ``sum(weight * cross-entropy) + strength / 2 * |W|**2``.

    It uses Nesterov's accelerated gradient with restarts (O'Donoghue and Candes, Adaptive Restart for Accelerated
    Gradient Schemes, 2015), in the metric of Boehning's bound of the Hessian (1992). The columns of ``rows`` must be
    orthogonal under the weights, as :func:`orthogonal` makes them. The bound is then diagonal, so a step costs two
    matrix products and is the same for all tasks.

    The bound is far above the curvature where there are many classes. So with many rows, Newton's method takes the
    steps (:func:`metarep.learners.newton.newton`), on the same rows and to the same tolerance, in float64 where float32
    does not reach it.

    Args:
        rows: reduced rows. One task of rows may be given for all tasks that differ only in ``weights``.
        targets: one-hot targets.
        strength: L2 regularisation, above 0.
        weights: weight of each row in the loss; 0 leaves a row out.
        base: the weights under which the columns are orthogonal, if they are not ``weights``.
        start: the weights of the rows to begin with, used where there are many rows; by default 0.
        tolerance: stop when the gradient, in the metric of the bound, is shorter than this in every task.
        most: largest number of steps.

    Returns:
        The weights of the reduced rows.

    Warns:
        NotSolvedWarning: the tolerance was not reached. The message has the length of the last gradient.

    >>> x, back = orthogonal(torch.tensor([[[1.0, 1.0], [-1.0, 1.0]]]), torch.ones(1, 2))
    >>> (x @ logistic(x, torch.eye(2).unsqueeze(0), 1.0, torch.ones(1, 2))).softmax(-1)[0, 0].round(decimals=3)
    tensor([0.7390, 0.2610])
    """
    tasks, ways, weigh = max(len(rows), len(weights)), targets.shape[-1], weights.unsqueeze(-1)
    base = weights if base is None else base
    most_of_base = (weights / base).amax(-1).view(-1, 1)
    bound = (most_of_base * (rows.square() * base.unsqueeze(-1)).sum(-2) / 2).unsqueeze(-1)
    whole = bound + strength
    new = ahead = rows.new_zeros(tasks, rows.shape[-1], ways)
    product = torch.matmul if len(rows) == tasks else _product_of_shared

    def length(gradient: Tensor) -> Tensor:
        return (gradient.square() / whole).sum((1, 2)).amax().sqrt()

    if rows.shape[-2] >= MANY_ROWS:
        weights, most = new if start is None else start.expand_as(new), min(most, STEPS)
        about = {"tolerance": tolerance, "most": most}
        for kind in dict.fromkeys((rows.dtype, torch.float64)):  # the latter where rounding stops the former
            x, y, first, weighed = (each.to(kind) for each in (rows, targets, weights, weigh))
            weights, left = newton(x, y, strength, weighed, first, product, length, **about)
            if left < tolerance:
                return weights.to(rows.dtype)
        _warn(most, left, tolerance, strength)
        return weights.to(rows.dtype)
    pace = torch.ones_like(bound[:, :1])
    for step in range(most):
        gradient = product(rows.mT, (product(rows, ahead).softmax(-1) - targets) * weigh) + strength * ahead
        left = length(gradient)
        if step % 5 == 4 and left < tolerance:
            return ahead - gradient / whole
        last, new = new, ahead - gradient / whole
        against = (gradient * (new - last)).sum((1, 2), keepdim=True) > 0
        pace = torch.where(against, torch.ones_like(pace), pace)
        following = (1 + (1 + 4 * pace.square()).sqrt()) / 2
        momentum = torch.where(against, torch.zeros_like(pace), (pace - 1) / following)
        ahead, pace = new + momentum * (new - last), following
    _warn(most, left, tolerance, strength)
    return new


def _product_of_shared(
    left: Float[Tensor, "1 n m"], right: Float[Tensor, "task m ways"]
) -> Float[Tensor, "task n ways"]:
    """The matrix products of tasks that share the left factor, as one product."""
    return (left[0] @ right.transpose(0, 1).flatten(1)).view(-1, *right.shape[::2]).transpose(0, 1)


def unrolled(
    gram: Float[Tensor, "task n n"],
    targets: Float[Tensor, "task n ways"],
    strength: float,
    weights: Float[Tensor, "task n"],
    *,
    tolerance: float = TOLERANCE,
    most: int = MOST_STEPS,
) -> Float[Tensor, "task n ways"]:
    """Logistic regression for training: its result is differentiable with respect to the rows.

    The gradient passes through all steps. :func:`logistic` cannot be used there, because a basis of eigenvectors has no
    derivative where two eigenvalues are equal. The steps are taken on the Gram matrix of the rows; its largest
    eigenvalue gives the step size and the momentum.

    Args:
        gram: ``rows @ rows.mT``.
        targets, strength, weights, tolerance, most: see :func:`logistic`.

    Returns:
        The dual weights ``d``: the weights of the classifier are ``rows.mT @ d``.

    Warns:
        NotSolvedWarning: the tolerance was not reached. The message has the largest entry of the last gradient.

    >>> unrolled(torch.eye(2).unsqueeze(0), torch.eye(2).unsqueeze(0), 1.0, torch.ones(1, 2)).round(decimals=3)
    tensor([[[ 0.3370, -0.3370],
             [-0.3370,  0.3370]]])
    """
    weigh = weights.unsqueeze(-1)
    largest = torch.linalg.eigvalsh(gram.detach())[..., -1].view(-1, 1, 1)
    smooth = weigh.amax(1, keepdim=True) * largest / 2 + strength
    root = (smooth / strength).sqrt()
    momentum = (root - 1) / (root + 1)
    dual = ahead = torch.zeros_like(targets)
    for step in range(most):
        gradient = ((gram @ ahead).softmax(-1) - targets) * weigh + strength * ahead
        new = ahead - gradient / smooth
        ahead, dual = new + momentum * (new - dual), new
        left = gradient.detach().abs().amax()
        if step % 10 == 9 and left < tolerance:
            return dual
    _warn(most, left, tolerance, strength)
    return dual


def _warn(most: int, left: Tensor, tolerance: float, strength: float) -> None:
    warnings.warn(
        f"logistic regression stopped after {most} steps with a gradient of {left.item():.1e}, above {tolerance:g}: "
        f"take a strength above {strength:g}",
        NotSolvedWarning,
        stacklevel=3,
    )
