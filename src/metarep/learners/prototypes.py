"""Prototypes: classification by the nearest class mean."""

from collections.abc import Sequence
from copy import copy
from typing import Any, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from metarep.encoders import Encoder
from metarep.errors import above, one_of
from metarep.learners.class_means import class_means
from metarep.learners.distances import squared_distances
from metarep.learners.learner import Learner, Metric, State


class Prototypes(Learner):
    """Nearest-class-mean classification: each class is the mean of its support features (its prototype).

    Snell et al., Prototypical Networks for Few-shot Learning, 2017. Trap: the distance is *squared*. Logits from plain
    distances have another scale and another gradient.

    Args:
        encoder: the representation.
        metric: ``euclidean``, minus the squared distance to the mean; ``cosine``, the cosine with the mean of
            normalised features.
        temperature: divides the logits.

    Raises:
        MetarepError: the metric is unknown, or the temperature is not above 0.

    >>> from metarep.encoders import Encoder, Preprocess
    >>> learner = Prototypes(Encoder(torch.nn.Flatten(), Preprocess((1, 1), 1, (0.0,), (1.0,))))
    >>> state = learner.adapt(torch.tensor([[[0.0], [2.0], [4.0]]]), torch.tensor([[0, 0, 1]]), ways=2)
    >>> learner.logits(state, torch.tensor([[[3.0]]]))
    tensor([[[-4., -1.]]])
    """

    unit = False  # whether the rows are on the unit sphere already

    def __init__(self, encoder: Encoder, metric: Metric = "euclidean", temperature: float = 1.0) -> None:
        super().__init__(encoder)
        one_of("metric", metric, get_args(Metric))
        above("temperature", temperature)
        self.metric: Metric = metric
        self.temperature = temperature

    @property
    def settings(self) -> dict[str, Any]:
        return {"metric": self.metric, "temperature": self.temperature}

    def settle(self, rows: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        return self._features(rows) if type(self) is Prototypes else rows  # a subclass may compare rows in another way

    def settled(self) -> Learner:
        if type(self) is not Prototypes:
            return self
        same = copy(self)  # with the same encoder
        same.unit = True
        return same

    def adapt(
        self, support: Float[Tensor, "task support dim"], labels: Int[Tensor, "task support"], ways: int
    ) -> State:
        """The prototype of each class, ``task ways dim``."""
        return {"prototypes": class_means(self._features(support), labels, ways)}

    def logits(self, state: State, query: Float[Tensor, "task query dim"]) -> Float[Tensor, "task query ways"]:
        """The similarity of each query to each prototype, divided by the temperature."""
        query, prototypes = self._features(query), state["prototypes"]
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
        """Cross-validation scores: the rows of each fold are subtracted from the sums of the classes."""
        rows, counts = self._features(support), labels.bincount(minlength=ways)
        sums = rows.new_zeros(ways, rows.shape[1]).index_add(0, labels, rows)
        scores = []
        for out in folds:
            left = (counts - labels[out].bincount(minlength=ways)).clamp_min(1).unsqueeze(1)
            means = sums.index_add(0, labels[out], rows[out], alpha=-1) / left
            scores.append(self.logits({"prototypes": means.unsqueeze(0)}, support[out].unsqueeze(0))[0])
        return torch.cat(scores)

    def _features(self, rows: Tensor) -> Tensor:
        """Features as the metric compares them; on the unit sphere for the cosine."""
        return functional.normalize(rows, dim=-1) if self.metric == "cosine" and not self.unit else rows
