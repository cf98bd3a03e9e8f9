"""Linear: a linear classifier on frozen features, solved for all tasks at once."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from metarep.encoders import Encoder
from metarep.errors import above, one_of
from metarep.learners.learner import Learner, State


class Linear(Learner):
    """Ridge regression in closed form, or logistic regression solved to its optimum.

    Both work in the space of the support images (a few dozen numbers a task), so 1,600 features cost no more than 64.
    Bertinetto et al., Meta-learning with Differentiable Closed-form Solvers, 2019 (ridge); Tian et al., Rethinking
    Few-shot Image Classification, 2020 (logistic regression on normalised features).

    Args:
        encoder: the representation.
        solver: ``ridge`` or ``logistic``.
        strength: how much the weights are held back, the ``lambda`` of ``loss + lambda / 2 * |W|**2`` where the loss is
            summed over the support.
        normalise: put features on the unit sphere first.
        scale: multiplies the logits of ``ridge``, whose regression targets are 0 and 1.
        power: of the size of each feature, its sign kept, before anything else; 0.5 tames the few features that shout.
        centre: subtract the mean of the support from support and queries, and put them on the unit sphere again. What
            all classes of a task share then says nothing, and what is unlike all of them scores low.
    """

    def __init__(
        self,
        encoder: Encoder,
        solver: Literal["ridge", "logistic"] = "logistic",
        strength: float = 1.0,
        normalise: bool = True,
        scale: float = 10.0,
        power: float = 1.0,
        centre: bool = False,
    ) -> None:
        super().__init__(encoder)
        one_of("solver", solver, ("ridge", "logistic"))
        above("strength", strength)
        above("power", power)
        self.solver, self.strength, self.normalise, self.scale = solver, strength, normalise, scale
        self.power, self.centre = power, centre

    def adapt(
        self, support: Float[Tensor, "task support dim"], labels: Int[Tensor, "task support"], ways: int
    ) -> State:
        centre = self._spread(support).mean(-2, keepdim=True) * self.centre
        x = self._place(support, centre)
        targets = functional.one_hot(labels, ways).to(x)
        solve = ridge if self.solver == "ridge" else logistic
        return {"weights": x.mT @ solve(x @ x.mT, targets, self.strength), "centre": centre}

    def logits(self, state: State, query: Float[Tensor, "task query dim"]) -> Float[Tensor, "task query ways"]:
        scores = self._place(query, state["centre"]) @ state["weights"]
        return scores * self.scale if self.solver == "ridge" else scores

    def leave_one_out(
        self, support: Float[Tensor, "n dim"], labels: Int[Tensor, " n"], ways: int
    ) -> Float[Tensor, "n ways"]:
        """For ridge the formula: ``y - a / diag((K + strength)^-1)``, with dual weights ``a`` of the Gram matrix K.

        The centre stays that of all images, the one left out among them.
        """
        if self.solver != "ridge":
            return super().leave_one_out(support, labels, ways)
        x = self._place(support, self._spread(support).mean(-2, keepdim=True) * self.centre)
        inverse = torch.linalg.inv(x @ x.mT + self.strength * torch.eye(len(x)).to(x))
        targets = functional.one_hot(labels, ways).to(x)
        return self.scale * (targets - inverse @ targets / inverse.diagonal().unsqueeze(1))

    def _spread(self, rows: Tensor) -> Tensor:
        rows = rows if self.power == 1 else rows.sign() * rows.abs().pow(self.power)
        return functional.normalize(rows, dim=-1) if self.normalise else rows

    def _place(self, rows: Tensor, centre: Tensor) -> Tensor:
        """Features with a constant one beside them, whose weight is the bias."""
        rows = self._spread(rows)
        if self.centre:
            rows = functional.normalize(rows - centre, dim=-1) if self.normalise else rows - centre
        return torch.cat([rows, rows.new_ones(*rows.shape[:-1], 1)], dim=-1)


def ridge(
    gram: Float[Tensor, "task support support"], targets: Float[Tensor, "task support ways"], strength: float
) -> Float[Tensor, "task support ways"]:
    """Dual weights of ridge regression; the weights are ``x.mT @`` these."""
    return torch.linalg.solve(gram + strength * torch.eye(gram.shape[-1]).to(gram), targets)


def logistic(
    gram: Float[Tensor, "task support support"],
    targets: Float[Tensor, "task support ways"],
    strength: float,
    *,
    tolerance: float = 1e-5,
    most: int = 1000,
) -> Float[Tensor, "task support ways"]:
    """Dual weights of multinomial logistic regression with a squared penalty, by Nesterov's accelerated gradient.

    The problem is smooth (constant ``largest eigenvalue / 2 + strength``) and strongly convex (``strength``), so the
    step and the momentum are known and no line search is needed: every task takes the same steps, as one batch.

    Args:
        gram: inner products of the support rows.
        targets: one-hot.
        strength: penalty, above zero.
        tolerance: stop when no entry of the dual gradient exceeds this in any task.
        most: steps at most.
    """
    smooth = torch.linalg.eigvalsh(gram)[..., -1].view(-1, 1, 1) / 2 + strength
    root = (smooth / strength).sqrt()
    momentum = (root - 1) / (root + 1)
    dual = ahead = torch.zeros_like(targets)
    for step in range(most):
        # In the dual the gradient of the penalty is ``strength * dual`` and that of the loss ``p - y``.
        gradient = (gram @ ahead).softmax(-1) - targets + strength * ahead
        new = ahead - gradient / smooth
        ahead = new + momentum * (new - dual)
        dual = new
        if step % 10 == 9 and gradient.abs().amax() < tolerance:
            break
    return dual
