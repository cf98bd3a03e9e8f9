"""Linear: ridge regression in closed form, or logistic regression solved to a tolerance."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from metarep.encoders import Encoder
from metarep.encoders.feature_means import powered
from metarep.errors import above, one_of
from metarep.learners.class_sizes import even_mean, mean_length, shared_cosine
from metarep.learners.learner import Learner, State
from metarep.learners.logistic import MANY_ROWS, TOLERANCE, logistic, orthogonal, unrolled

FEW = 128  # with at most this many images, one image changes their mean noticeably
LEVELLED = 0.7  # of the expected score; 0.3 and 0.5 leave more to large classes (Caltech-101, CIFAR-FS)
HELD = 1 << 28  # values in the weights of all folds that are held at a time


class Linear(Learner):
    """A linear classifier of the task: ridge regression in closed form, or logistic regression solved to a tolerance.

    Both solvers work in a basis of the support images (a few dozen values a task), so 1,600 features cost no more than
    64. Bertinetto et al., Meta-learning with Differentiable Closed-form Solvers, 2019 (ridge); Tian et al., Rethinking
    Few-shot Image Classification, 2020 (logistic regression on normalised features).

    Args:
        encoder: the representation.
        solver: ``ridge`` or ``logistic``.
        strength: L2 regularisation, the ``lambda`` of ``loss + lambda / 2 * |W|**2``, where the loss is summed over the
            support.
        normalise: put features on the unit sphere first.
        scale: multiplies the logits of ``ridge``, whose regression targets are 0 and 1.
        power: exponent for the absolute value of each feature, applied first; the sign stays. 0.5 reduces the weight of
            the few largest features.
        centre: subtract the mean of the support from support and queries, and put them on the unit sphere again. What
            all classes of a task have in common then has no effect.
        balance: give all classes the same weight in the loss, whatever the number of their images. The weights of the
            images sum to their number, so nothing changes if all classes have equally many images.
        level: subtract from the scores of each class a part of the score that a new image of it can expect. A
            classifier fits its own images alike whatever the size of their class, but a new image is farther from the
            few images of a small class, and is taken for one of a large class (:mod:`metarep.learners.class_sizes`).
            Nothing changes if all classes have equally many images.

    Raises:
        MetarepError: the solver is unknown, or ``strength`` or ``power`` is not above 0.

    >>> from metarep.encoders import Preprocess
    >>> encoder = Encoder(torch.nn.Flatten(), Preprocess((1, 1), 1, (0.0,), (1.0,)))
    >>> learner = Linear(encoder, "ridge", normalise=False, scale=1.0)
    >>> state = learner.adapt(torch.tensor([[[0.0], [2.0]]]), torch.tensor([[0, 1]]), ways=2)
    >>> learner.logits(state, torch.tensor([[[2.0]]]))
    tensor([[[0.0909, 0.8182]]])
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
        level: bool = False,
    ) -> None:
        super().__init__(encoder)
        one_of("solver", solver, ("ridge", "logistic"))
        above("strength", strength)
        above("power", power)
        self.solver, self.strength, self.normalise, self.scale = solver, strength, normalise, scale
        self.power, self.centre, self.balance, self.level = power, centre, balance, level

    @property
    def settings(self) -> dict[str, Any]:
        """Its settings. ``level`` is left out if it is off, so that earlier versions can read a file without it."""
        names = ("solver", "strength", "normalise", "scale", "power", "centre", "balance")
        return {name: getattr(self, name) for name in names} | ({"level": True} if self.level else {})

    def adapt(
        self, support: Float[Tensor, "task support dim"], labels: Int[Tensor, "task support"], ways: int
    ) -> State:
        """The weights of the classifier (bias in the last row), and the centre that is subtracted from features."""
        centre = self._normalised(support).mean(-2, keepdim=True) * self.centre
        x = self._features(support, centre)
        weigh, targets = self._weigh(labels, ways, x), functional.one_hot(labels, ways).to(x)
        if self.solver == "ridge":
            weights = ridge(x, targets, self.strength, weigh)
        elif x.requires_grad:
            weights = x.mT @ unrolled(x @ x.mT, targets, self.strength, weigh)
        else:
            rows, back = orthogonal(x, weigh)
            weights = back @ logistic(rows, targets, self.strength, weigh)
        if self.level and not _even(targets.sum(1)):
            shift = _shift(x @ weights, targets, _shared(x, labels, ways))
            weights = torch.cat([weights[:, :-1], weights[:, -1:] - shift], 1)  # the bias
        return {"weights": weights, "centre": centre}

    def logits(self, state: State, query: Float[Tensor, "task query dim"]) -> Float[Tensor, "task query ways"]:
        """The linear scores of each class; those of ``ridge`` are multiplied by ``scale``."""
        scores = self._features(query, state["centre"]) @ state["weights"]
        return scores * self.scale if self.solver == "ridge" else scores

    def held_out(
        self,
        support: Float[Tensor, "n dim"],
        labels: Int[Tensor, " n"],
        ways: int,
        folds: Sequence[Int[Tensor, " _"]],
    ) -> Float[Tensor, "tested ways"]:
        """Cross-validation scores; all folds share one basis, and the rows of a fold get the weight 0.

        Several folds are solved at a time. With ``centre``, the mean of all images is used for every fold, and the
        images left out are part of it. With few images this would leak too much, so each fold is adapted separately.
        """
        if self.centre and len(labels) <= FEW:
            return super().held_out(support, labels, ways, folds)
        spread = self._normalised(support)
        x = self._features(support, spread.mean(-2, keepdim=True) * self.centre).unsqueeze(0)
        base = self._weigh(labels.unsqueeze(0), ways, x)
        rows, _ = orthogonal(x, base)
        targets = functional.one_hot(labels, ways).to(rows).unsqueeze(0)
        many = self.solver == "logistic" and len(labels) >= MANY_ROWS
        tolerance = TOLERANCE * (1 if len(labels) <= FEW else 1000 if many else 100)  # scores are exact to about 0.01
        whole = logistic(rows, targets, self.strength, base, tolerance=tolerance) if many else None  # folds are near it
        shared = _shared(x, labels.unsqueeze(0), ways) if self.level else None
        scores, step = [], max(1, HELD // (16 * rows[0].numel() + 16 * len(labels) * ways))
        for start in range(0, len(folds), step):
            now = folds[start : start + step]
            stays = torch.stack([torch.ones_like(labels, dtype=torch.bool).index_fill(0, out, False) for out in now])
            weigh = torch.cat([self._weigh(labels.unsqueeze(0), ways, rows, keep) for keep in stays])
            if self.solver == "ridge":
                weights = ridge(rows, targets, self.strength, weigh)
            else:
                weights = logistic(rows, targets, self.strength, weigh, base, whole, tolerance=tolerance)
            for keep, out, own in zip(stays, now, weights, strict=True):
                found, member = rows[0, out] @ own, targets * keep.unsqueeze(-1)
                if shared is not None and not _even(member.sum(1)):
                    found = found - _shift(rows @ own, member, shared)[0]
                scores.append(found)
        logits = torch.cat(scores)
        return logits * self.scale if self.solver == "ridge" else logits

    def _weigh(
        self, labels: Int[Tensor, "task n"], ways: int, like: Tensor, stays: Tensor | None = None
    ) -> Float[Tensor, "task n"]:
        """The weight of each row in the loss; 0 for the rows that are left out."""
        stays = torch.ones_like(labels, dtype=torch.bool) if stays is None else stays.expand_as(labels)
        if not self.balance:
            return stays.to(like.dtype)
        counts = like.new_zeros(len(labels), ways).scatter_add_(1, labels, stays.to(like.dtype))
        classes = (counts > 0).sum(1, keepdim=True)
        return stays * stays.sum(1, keepdim=True) / classes / counts.clamp_min(1).gather(1, labels)

    def _normalised(self, rows: Tensor) -> Tensor:
        """Features after ``power`` and ``normalise``."""
        rows = powered(rows, self.power)
        return functional.normalize(rows, dim=-1) if self.normalise else rows

    def _features(self, rows: Tensor, centre: Tensor) -> Tensor:
        """Features as the solver uses them, minus the centre, with a column of ones whose weight is the bias."""
        rows = self._normalised(rows)
        if self.centre:
            rows = functional.normalize(rows - centre, dim=-1) if self.normalise else rows - centre
        return torch.cat([rows, rows.new_ones(*rows.shape[:-1], 1)], dim=-1)


def _even(counts: Float[Tensor, "task ways"]) -> bool:
    """Whether all classes of each task have equally many images."""
    return bool((counts == counts[:, :1]).all())


def _shared(x: Float[Tensor, "task n dim"], labels: Int[Tensor, "task n"], ways: int) -> Float[Tensor, "task one"]:
    """The mean cosine of two images of a class around the mean of the classes, for features with a column of ones."""
    rows = x[..., :-1]
    return shared_cosine(rows - even_mean(rows, labels, ways), labels, ways).unsqueeze(-1)


def _shift(
    scores: Float[Tensor, "task n ways"], member: Float[Tensor, "task n ways"], shared: Float[Tensor, "task one"]
) -> Float[Tensor, "task 1 ways"]:
    """What is subtracted from the scores of each class, so that images of any class can expect the same.

    The images of a class score alike in its own classifier. A new image has with their mean not the cosine that they
    have, the length of the mean, but ``shared / length`` (:mod:`metarep.learners.class_sizes`).

    Args:
        scores: the scores of the support.
        member: its classes, one-hot; a row of zeros leaves an image out.
        shared: see :func:`_shared`.
    """
    counts = member.sum(1).clamp_min(1)
    expected = (scores * member).sum(1) / counts * shared / mean_length(shared, counts).square()
    return LEVELLED * (expected - expected.mean(-1, keepdim=True)).unsqueeze(1)


def ridge(
    rows: Float[Tensor, "#task n dim"],
    targets: Float[Tensor, "#task n ways"],
    strength: float,
    weights: Float[Tensor, "#task n"],
) -> Float[Tensor, "task dim ways"]:
    """Ridge regression: the weights that minimise ``sum(weight * squared error) + strength * |W|**2``.

    It is solved in float64, because in float32 a small strength is lost in rounding. The linear system has the size of
    the rows or of the features, whichever is smaller.

    Args:
        rows: features, one row an image.
        targets: regression targets, 0 or 1.
        strength: L2 regularisation, above 0.
        weights: weight of each row in the loss; 0 leaves a row out.

    >>> ridge(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[1.0], [2.0]]]), 5.0, torch.ones(1, 2))
    tensor([[[0.5000]]])
    """
    root = weights.double().sqrt().unsqueeze(-1)
    x, y = rows.double() * root, targets.double() * root
    wide = x.shape[-2] <= x.shape[-1]
    gram = x @ x.mT if wide else x.mT @ x
    gram = gram + strength * torch.eye(gram.shape[-1], dtype=x.dtype, device=x.device)
    return (x.mT @ torch.linalg.solve(gram, y) if wide else torch.linalg.solve(gram, x.mT @ y)).to(rows.dtype)
