"""Linear: ridge regression in closed form, or logistic regression solved to its optimum."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from metarep.encoders import Encoder
from metarep.errors import above, one_of
from metarep.learners.learner import Learner, State
from metarep.learners.logistic import TOLERANCE, logistic, orthogonal, unrolled

FEW = 128  # images of which each moves their mean
HELD = 1 << 28  # numbers of weights of all folds that are held at a time


class Linear(Learner):
    """A linear classifier of the task, learned in closed form or solved to a stated tolerance.

    Both solvers work in a basis of the support images (a few dozen numbers a task), so 1,600 features cost no more than
    64. Bertinetto et al., Meta-learning with Differentiable Closed-form Solvers, 2019 (ridge); Tian et al., Rethinking
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
            all classes of a task share then says nothing.
        balance: all classes weigh the same in the loss, whatever the number of their images. The weights of the images
            sum to their number, so nothing changes where the classes are equal.
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
        balance: bool = False,
    ) -> None:
        super().__init__(encoder)
        one_of("solver", solver, ("ridge", "logistic"))
        above("strength", strength)
        above("power", power)
        self.solver, self.strength, self.normalise, self.scale = solver, strength, normalise, scale
        self.power, self.centre, self.balance = power, centre, balance

    @property
    def settings(self) -> dict[str, Any]:
        names = ("solver", "strength", "normalise", "scale", "power", "centre", "balance")
        return {name: getattr(self, name) for name in names}

    def adapt(
        self, support: Float[Tensor, "task support dim"], labels: Int[Tensor, "task support"], ways: int
    ) -> State:
        centre = self._spread(support).mean(-2, keepdim=True) * self.centre
        x = self._place(support, centre)
        weigh, targets = self._weigh(labels, ways, x), functional.one_hot(labels, ways).to(x)
        if self.solver == "ridge":
            return {"weights": ridge(x, targets, self.strength, weigh), "centre": centre}
        if x.requires_grad:
            return {"weights": x.mT @ unrolled(x @ x.mT, targets, self.strength, weigh), "centre": centre}
        rows, back = orthogonal(x, weigh)
        return {"weights": back @ logistic(rows, targets, self.strength, weigh), "centre": centre}

    def logits(self, state: State, query: Float[Tensor, "task query dim"]) -> Float[Tensor, "task query ways"]:
        scores = self._place(query, state["centre"]) @ state["weights"]
        return scores * self.scale if self.solver == "ridge" else scores

    def held_out(
        self,
        support: Float[Tensor, "n dim"],
        labels: Int[Tensor, " n"],
        ways: int,
        folds: Sequence[Int[Tensor, " _"]],
    ) -> Float[Tensor, "tested ways"]:
        """All folds share one basis, and a row that is left out weighs nothing. Solved a few folds at a time.

        Where there is a centre it stays that of all images, those left out among them; with few images that would tell
        too much of them, so each fold is then adapted to by itself.
        """
        if self.centre and len(labels) <= FEW:
            return super().held_out(support, labels, ways, folds)
        spread = self._spread(support)
        x = self._place(support, spread.mean(-2, keepdim=True) * self.centre).unsqueeze(0)
        base = self._weigh(labels.unsqueeze(0), ways, x)
        rows, _ = orthogonal(x, base)
        targets = functional.one_hot(labels, ways).to(rows).unsqueeze(0)
        tolerance = TOLERANCE if len(labels) <= FEW else 100 * TOLERANCE
        scores, some = [], max(1, HELD // (16 * rows[0].numel() + 16 * len(labels) * ways))
        for start in range(0, len(folds), some):
            now = folds[start : start + some]
            stays = torch.stack([torch.ones_like(labels, dtype=torch.bool).index_fill(0, out, False) for out in now])
            weigh = torch.cat([self._weigh(labels.unsqueeze(0), ways, rows, keep) for keep in stays])
            if self.solver == "ridge":
                weights = ridge(rows, targets, self.strength, weigh)
            else:
                weights = logistic(rows, targets, self.strength, weigh, base, tolerance=tolerance)
            scores += [rows[0, out] @ own for out, own in zip(now, weights, strict=True)]
        found = torch.cat(scores)
        return found * self.scale if self.solver == "ridge" else found

    def _weigh(
        self, labels: Int[Tensor, "task n"], ways: int, like: Tensor, stays: Tensor | None = None
    ) -> Float[Tensor, "task n"]:
        """Of each row of the loss; 0 of those that do not stay."""
        stays = torch.ones_like(labels, dtype=torch.bool) if stays is None else stays.expand_as(labels)
        if not self.balance:
            return stays.to(like.dtype)
        counts = like.new_zeros(len(labels), ways).scatter_add_(1, labels, stays.to(like.dtype))
        there = (counts > 0).sum(1, keepdim=True)
        return stays * stays.sum(1, keepdim=True) / there / counts.clamp_min(1).gather(1, labels)

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
    rows: Float[Tensor, "#task n dim"],
    targets: Float[Tensor, "#task n ways"],
    strength: float,
    weights: Float[Tensor, "#task n"],
) -> Float[Tensor, "task dim ways"]:
    """Weights of the least ``sum(weight * squared error) + strength * |W|**2``.

    Solved in float64, for in float32 a small strength drowns in rounding, and in the space of the rows or of the
    features, whichever is smaller. A weight of 0 leaves a row out.
    """
    root = weights.double().sqrt().unsqueeze(-1)
    x, y = rows.double() * root, targets.double() * root
    wide = x.shape[-2] <= x.shape[-1]
    gram = x @ x.mT if wide else x.mT @ x
    gram = gram + strength * torch.eye(gram.shape[-1], dtype=x.dtype, device=x.device)
    return (x.mT @ torch.linalg.solve(gram, y) if wide else torch.linalg.solve(gram, x.mT @ y)).to(rows.dtype)
