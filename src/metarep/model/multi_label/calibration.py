"""Calibration: scores of several labels become probabilities and decisions, by what was said of images left out."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

SHRINK = 5.0  # images of a label, at which its own threshold counts as much as that of all labels


@dataclass(frozen=True)
class Calibration:
    """How scores become probabilities and decisions. It comes from images that were left out.

    Args:
        scale, shift: the probability of a label is ``sigmoid(scale * score + shift)``, the same for all labels (Platt,
            Probabilistic Outputs for Support Vector Machines, 1999).
        thresholds: for each label the probability from which an image is said to have it.
        tested: for each label whether it could be left out, which takes two images with it and two without.
    """

    scale: float
    shift: float
    thresholds: tuple[float, ...]
    tested: tuple[bool, ...]

    @classmethod
    def of(cls, held_out: Float[Tensor, "n labels"], marks: Bool[Tensor, "n labels"]) -> "Calibration":
        """Returns the calibration that scores of left-out images give. Without any, a threshold is 0.5.

        Args:
            held_out: the score of each label, shape ``(n, labels)``; NaN for a label that could not be left out.
            marks: which image has which label, shape ``(n, labels)``.

        >>> held_out, marks = torch.tensor([[3.0], [2.0], [-2.0], [-3.0]]), torch.tensor([[1], [1], [0], [0]]).bool()
        >>> found = Calibration.of(held_out, marks)
        >>> found.decide(found.probabilities(torch.tensor([[2.5], [-2.5]]))).tolist()
        [[True], [False]]
        """
        tested, labels = ~held_out.isnan().any(0), marks.shape[1]
        if not tested.any():
            return cls(1.0, 0.0, (0.5,) * labels, (False,) * labels)
        scale, shift = _platt(held_out[:, tested].flatten(), marks[:, tested].flatten())
        probabilities = (scale * held_out + shift).sigmoid()
        common = _best_threshold(probabilities[:, tested].flatten(), marks[:, tested].flatten())
        thresholds = []
        for index, count in enumerate(marks.sum(0).tolist()):
            own = _best_threshold(probabilities[:, index], marks[:, index]) if tested[index] else common
            thresholds.append(common + count / (count + SHRINK) * (own - common))
        return cls(scale, shift, tuple(thresholds), tuple(tested.tolist()))

    def probabilities(self, scores: Float[Tensor, "m labels"]) -> Float[Tensor, "m labels"]:
        """Returns the probabilities of scores, each 0 to 1."""
        return (self.scale * scores + self.shift).sigmoid()

    def decide(self, probabilities: Float[Tensor, "m labels"]) -> Bool[Tensor, "m labels"]:
        """Returns which labels an image has, by the threshold of each."""
        return probabilities >= torch.tensor(self.thresholds)


def _platt(scores: Float[Tensor, " n"], has: Bool[Tensor, " n"]) -> tuple[float, float]:
    """Fits the scale and shift of a sigmoid by maximum likelihood, with Platt's smoothed targets."""
    yes, no = has.sum().item(), (~has).sum().item()
    targets = torch.where(has, (yes + 1) / (yes + 2), 1 / (no + 2)).double()
    values, parameters = scores.double(), torch.tensor([1.0, 0.0], dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = parameters[0] * values + parameters[1]
        loss = functional.binary_cross_entropy_with_logits(logits, targets)
        loss.backward()
        return loss

    optimizer.step(closure)  # pyright: ignore[reportArgumentType]
    scale, shift = parameters.detach().tolist()
    return max(scale, 1e-3), shift  # a larger score never makes a label less probable


def _best_threshold(probabilities: Float[Tensor, " n"], has: Bool[Tensor, " n"]) -> float:
    """Returns the threshold of the largest F1, in the middle between two values.

    >>> round(_best_threshold(torch.tensor([0.9, 0.6, 0.2]), torch.tensor([True, True, False])), 4)
    0.4
    """
    order = probabilities.argsort(descending=True, stable=True)
    values, right = probabilities[order].double(), has[order].cumsum(0)
    f1 = 2 * right / (torch.arange(1, len(order) + 1) + has.sum())
    ends = torch.cat([values[:-1] > values[1:], torch.tensor([True])])  # equal values are on the same side
    last = int(torch.where(ends, f1, -1.0).argmax())
    below = values[last + 1] if last + 1 < len(values) else torch.tensor(0.0)
    return float((values[last] + below) / 2)
