"""Multinomial logistic regression on few rows, for many tasks at once, solved to a stated tolerance."""

import warnings

import torch
from jaxtyping import Float
from torch import Tensor

TOLERANCE = 1e-5  # of the gradient in the metric of the bound: logits are then right to about a ten-thousandth
MOST_STEPS = 2000


class NotSolvedWarning(UserWarning):
    """A solver stopped before it reached its tolerance."""


def orthogonal(
    rows: Float[Tensor, "task n dim"], weights: Float[Tensor, "task n"]
) -> tuple[Float[Tensor, "task n rank"], Float[Tensor, "task dim rank"]]:
    """Rows in a basis whose columns are orthogonal under weights, and the matrix that takes weights of that basis back.

    The basis is that of the eigenvectors of the smaller Gram matrix, found in float64, so 1,280 features of 50 images
    become 50 numbers.

    Args:
        rows: of any rank.
        weights: of the rows, above zero.

    Returns:
        ``(reduced, back)`` with ``reduced = rows @ back``; ``back @ w`` is for ``rows`` what ``w`` is for ``reduced``.
        Directions without length are columns of zeros.

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
    *,
    tolerance: float = TOLERANCE,
    most: int = MOST_STEPS,
) -> Float[Tensor, "task rank ways"]:
    """Weights of the least ``sum(weight * cross-entropy) + strength / 2 * |W|**2``.

    Nesterov's accelerated gradient with restarts (O'Donoghue and Candes, Adaptive Restart for Accelerated Gradient
    Schemes, 2015), in the metric of Boehning's bound of the Hessian (1992). The columns of ``rows`` must be orthogonal
    under the weights, as :func:`orthogonal` makes them: the bound is then diagonal, so a step costs two matrix products
    and needs no line search, and every task takes the same steps.

    Args:
        rows: reduced rows. One task of rows may stand for all, with a weight of each row for each task.
        targets: one-hot.
        strength: penalty, above zero.
        weights: of the rows in the loss; 0 leaves a row out.
        base: the weights under which the columns are orthogonal, where they are not ``weights``.
        tolerance: stop when the gradient, in the metric of the bound, is shorter than this in every task.
        most: steps at most.

    Returns:
        The weights of the reduced rows.

    Warns:
        NotSolvedWarning: the tolerance was not reached, with the length of the gradient that is left.

    >>> x, back = orthogonal(torch.tensor([[[1.0, 1.0], [-1.0, 1.0]]]), torch.ones(1, 2))
    >>> (x @ logistic(x, torch.eye(2).unsqueeze(0), 1.0, torch.ones(1, 2))).softmax(-1)[0, 0].round(decimals=3)
    tensor([0.7390, 0.2610])
    """
    tasks, ways = max(len(rows), len(weights)), targets.shape[-1]
    base = weights if base is None else base
    most_of_base = (weights / base).amax(-1).view(-1, 1)
    bound = (most_of_base * (rows.square() * base.unsqueeze(-1)).sum(-2) / 2 + strength).unsqueeze(-1)
    new = ahead = rows.new_zeros(tasks, rows.shape[-1], ways)
    pace = torch.ones_like(bound[:, :1]).expand(tasks, 1, 1)
    shared = len(rows) == 1 and tasks > 1
    for step in range(most):
        if shared:  # one product for all tasks
            logits = (rows[0] @ ahead.transpose(0, 1).flatten(1)).view(-1, tasks, ways).transpose(0, 1)
            slope = (logits.softmax(-1) - targets) * weights.unsqueeze(-1)
            data = (rows[0].mT @ slope.transpose(0, 1).flatten(1)).view(-1, tasks, ways).transpose(0, 1)
        else:
            slope = ((rows @ ahead).softmax(-1) - targets) * weights.unsqueeze(-1)
            data = rows.mT @ slope
        gradient = data + strength * ahead
        left = (gradient.square() / bound).sum((1, 2)).amax().sqrt()
        last, new = new, ahead - gradient / bound
        if step % 5 == 4 and left < tolerance:
            return new
        against = (gradient * (new - last)).sum((1, 2), keepdim=True) > 0
        pace = torch.where(against, torch.ones_like(pace), pace)
        following = (1 + (1 + 4 * pace.square()).sqrt()) / 2
        ahead = new + torch.where(against, torch.zeros_like(pace), (pace - 1) / following) * (new - last)
        pace = following
    _tell(most, left, tolerance, strength)
    return new


def unrolled(
    gram: Float[Tensor, "task n n"],
    targets: Float[Tensor, "task n ways"],
    strength: float,
    weights: Float[Tensor, "task n"],
    *,
    tolerance: float = TOLERANCE,
    most: int = MOST_STEPS,
) -> Float[Tensor, "task n ways"]:
    """The same for training: dual weights, so that ``rows.mT @`` these are the weights, with a gradient to the rows.

    A basis of eigenvectors has no derivative where two lengths are equal, so the steps are taken on the Gram matrix of
    the rows, with the step and the momentum that its largest eigenvalue gives.
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
    _tell(most, left, tolerance, strength)
    return dual


def _tell(most: int, left: Tensor, tolerance: float, strength: float) -> None:
    warnings.warn(
        f"logistic regression stopped after {most} steps with a gradient of {left.item():.1e}, above {tolerance:g}: "
        f"take a strength above {strength:g}",
        NotSolvedWarning,
        stacklevel=3,
    )
