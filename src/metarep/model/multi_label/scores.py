"""Measures answers of several labels an image: mean average precision, and F1 over all labels and as their mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarep.errors import MetarepError

DRAWS = 1000  # of the bootstrap
FIGURES = {"mean_average_precision": "mean average precision", "micro_f1": "micro F1", "macro_f1": "macro F1"}


@dataclass(frozen=True)
class LabelVerdict:
    """How right a model of several labels is on images.

    Args:
        images: the number of images.
        names: the labels that at least one of the images has; only these are measured.
        precision: the mean of the average precision of each label, in percent. It depends on the order of the scores
            alone, and on no threshold.
        micro: F1 of all decisions together, in percent: each label of each image weighs the same.
        macro: the mean of the F1 of each label, in percent: each label weighs the same.
        intervals: the 95 % interval of each of the three, from 1,000 bootstrap samples of the images.
        per_label: for each label its ``images``, ``average_precision`` and ``f1``.
    """

    images: int
    names: tuple[str, ...]
    precision: float
    micro: float
    macro: float
    intervals: dict[str, tuple[float, float]]
    per_label: dict[str, dict[str, float]]

    def as_dict(self) -> dict[str, Any]:
        """Returns the result as JSON can hold it."""
        figures = {"mean_average_precision": self.precision, "micro_f1": self.micro, "macro_f1": self.macro}
        shares = {
            name: {"percent": round(value, 2), "interval": [round(bound, 2) for bound in self.intervals[name]]}
            for name, value in figures.items()
        }
        return {"images": self.images, **shares, "labels": self.per_label}

    def lines(self, how: str) -> list[str]:
        """Returns a line of text for each figure, with its interval and ``how`` it was measured."""
        facts = self.as_dict()
        return [
            f"{called} {facts[key]['percent']:.1f} % ({facts[key]['interval'][0]:.1f} to "
            f"{facts[key]['interval'][1]:.1f}) {how}"
            for key, called in FIGURES.items()
        ]


def measure_labels(
    names: Sequence[str],
    scores: Float[Tensor, "n labels"],
    decided: Bool[Tensor, "n labels"],
    has: Bool[Tensor, "n labels"],
) -> LabelVerdict:
    """Measures scores and decisions against the truth.

    Args:
        names: the labels.
        scores: a score for each image and label.
        decided: which labels were said of which image.
        has: which image has which label.

    Raises:
        MetarepError: no image has any of the labels.

    >>> scores = torch.tensor([[0.9, 0.2], [0.8, 0.7], [0.1, 0.6]])
    >>> has = torch.tensor([[True, False], [False, True], [False, True]])
    >>> verdict = measure_labels(["sun", "sea"], scores, scores > 0.5, has)
    >>> verdict.precision, verdict.micro, round(verdict.macro, 2)
    (100.0, 85.71428571428571, 83.33)
    """
    met = has.any(0)
    if not met.any():
        raise MetarepError("no image has any label of the model; give images that have one")
    scores, decided, has = scores[:, met], decided[:, met], has[:, met]
    kept = tuple(name for name, there in zip(names, met.tolist(), strict=True) if there)
    n = len(scores)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(n, (DRAWS, n), generator=generator)
    weights = torch.zeros(DRAWS + 1, n, dtype=torch.double).scatter_add_(
        1, torch.cat([torch.arange(n)[None], drawn]), torch.ones(DRAWS + 1, n, dtype=torch.double)
    )  # the first row is the images themselves
    precisions = torch.stack([_average_precision(scores[:, i], has[:, i], weights) for i in range(len(kept))], 1)
    right, said, true = (weights @ part.double() for part in (decided & has, decided, has))
    f1 = 2 * right / (said + true)  # NaN where a label is neither said nor true in a sample
    micro = 2 * right.sum(1) / (said.sum(1) + true.sum(1))
    figures = {
        "mean_average_precision": 100 * precisions.nanmean(1),
        "micro_f1": 100 * micro,
        "macro_f1": 100 * f1.nanmean(1),
    }
    per_label = {
        name: {
            "images": int(has[:, i].sum()),
            "average_precision": round(100 * precisions[0, i].item(), 2),
            "f1": round(100 * f1[0, i].item(), 2),
        }
        for i, name in enumerate(kept)
    }
    intervals = {name: _interval(values[1:]) for name, values in figures.items()}
    precision, micro_f1, macro_f1 = (values[0].item() for values in figures.values())
    return LabelVerdict(n, kept, precision, micro_f1, macro_f1, intervals, per_label)


def _interval(values: Float[Tensor, " draws"]) -> tuple[float, float]:
    low, high = values[~values.isnan()].quantile(torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return low, high


def _average_precision(
    scores: Float[Tensor, " n"], has: Bool[Tensor, " n"], weights: Float[Tensor, "draws n"]
) -> Float[Tensor, " draws"]:
    """Returns the average precision of one label for each row of weights; NaN where no image of weight has the label.

    Images of equal score are one step of the curve, as scikit-learn counts them.
    """
    order = scores.argsort(descending=True, stable=True)
    values = scores[order]
    weights, right = weights[:, order], weights[:, order] * has[order]
    ends = torch.searchsorted(-values, -values, right=True) - 1  # the last image of an equal score
    found, all_until = right.cumsum(1)[:, ends], weights.cumsum(1)[:, ends]
    precision = torch.where(all_until > 0, found / all_until.clamp_min(1e-12), 0.0)
    return (right * precision).sum(1) / right.sum(1)
