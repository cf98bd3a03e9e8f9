"""Prototypes: a class is the mean of its support features."""

from collections.abc import Sequence
from typing import Any, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from metarep.class_means import class_means
from metarep.encoders import Encoder
from metarep.errors import above, one_of
from metarep.learners.distances import squared_distances
from metarep.learners.learner import Learner, Metric, State


class Prototypes(Learner):
    """Nearest class mean.

    Snell et al., Prototypical Networks for Few-shot Learning, 2017. Trap: the distance is *squared*; logits from plain
    distances train at another temperature and another gradient.

    Args:
        encoder: the representation.
        metric: ``euclidean``, minus the squared distance to the mean; ``cosine``, the cosine with the mean of
            normalised features.
        temperature: divides the logits.
    """

    def __init__(self, encoder: Encoder, metric: Metric = "euclidean", temperature: float = 1.0) -> None:
        super().__init__(encoder)
        one_of("metric", metric, get_args(Metric))
        above("temperature", temperature)
        self.metric: Metric = metric
        self.temperature = temperature

    @property
    def settings(self) -> dict[str, Any]:
        return {"metric": self.metric, "temperature": self.temperature}

    def adapt(
        self, support: Float[Tensor, "task support dim"], labels: Int[Tensor, "task support"], ways: int
    ) -> State:
        return {"prototypes": class_means(self._place(support), labels, ways)}

    def logits(self, state: State, query: Float[Tensor, "task query dim"]) -> Float[Tensor, "task query ways"]:
        query, prototypes = self._place(query), state["prototypes"]
        if self.metric == "cosine":
            return query @ functional.normalize(prototypes, dim=-1).mT / self.temperature
        return -squared_distances(query, prototypes) / self.temperature

    def held_out(
        self,
        support: Float[Tensor, "n dim"],
        labels: Int[Tensor, " n"],
        ways: int,
        folds: Sequence[Int[Tensor, " _"]],
    ) -> Float[Tensor, "tested ways"]:
        """The sums of the classes are taken once, and less the rows of each fold."""
        rows, counts = self._place(support), labels.bincount(minlength=ways)
        sums = rows.new_zeros(ways, rows.shape[1]).index_add(0, labels, rows)
        scores = []
        for out in folds:
            left = (counts - labels[out].bincount(minlength=ways)).clamp_min(1).unsqueeze(1)
            means = sums.index_add(0, labels[out], rows[out], alpha=-1) / left
            scores.append(self.logits({"prototypes": means.unsqueeze(0)}, support[out].unsqueeze(0))[0])
        return torch.cat(scores)

    def _place(self, rows: Tensor) -> Tensor:
        return functional.normalize(rows, dim=-1) if self.metric == "cosine" else rows
