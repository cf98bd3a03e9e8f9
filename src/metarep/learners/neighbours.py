"""Neighbours: classification by the k nearest support images."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from metarep.encoders import Encoder
from metarep.errors import MetarepError
from metarep.learners.distances import squared_distances
from metarep.learners.labelled_index import LabelledIndex
from metarep.learners.learner import Metric, State
from metarep.learners.settling import Settling


class Neighbours(Settling):
    """k-nearest-neighbour classification with distance-weighted votes.

    The nearest ``k`` support rows (all of them if there are fewer) share one vote, weighted by a softmax of their
    similarity. The logits are the logarithm of each class's share. With ``k=1`` this is the nearest neighbour.

    Tasks are solved in batches, by comparing every query with every support row. For one large, growing task, the state
    may be a :class:`LabelledIndex`, which finds the rows that vote.

    Args:
        encoder: the representation.
        k: number of neighbours that vote.
        metric: ``cosine``, or ``euclidean`` (minus the squared distance).
        temperature: divides the similarities in the softmax; a smaller one gives more weight to the nearest row.

    >>> from metarep.encoders import Preprocess
    >>> encoder = Encoder(torch.nn.Flatten(), Preprocess((1, 1), 1, (0.0,), (1.0,)))
    >>> learner = Neighbours(encoder, k=2, metric="euclidean", temperature=1.0)
    >>> state = learner.adapt(torch.tensor([[[0.0], [2.0], [9.0]]]), torch.tensor([[0, 1, 1]]), ways=2)
    >>> learner.logits(state, torch.tensor([[[1.0]]])).exp()
    tensor([[[0.5000, 0.5000]]])
    """

    unit = False  # whether the rows are on the unit sphere already

    def __init__(self, encoder: Encoder, k: int = 1, metric: Metric = "cosine", temperature: float = 0.1) -> None:
        super().__init__(encoder)
        self.k, self.temperature = k, temperature
        self.metric: Metric = metric

    @property
    def settings(self) -> dict[str, Any]:
        return {"k": self.k, "metric": self.metric, "temperature": self.temperature}

    def adapt(
        self, support: Float[Tensor, "task support dim"], labels: Int[Tensor, "task support"], ways: int
    ) -> State:
        """The support rows and their one-hot classes."""
        return {"support": support, "onehot": functional.one_hot(labels, ways).to(support)}

    def logits(
        self, state: State | LabelledIndex, query: Float[Tensor, "task query dim"]
    ) -> Float[Tensor, "task query ways"]:
        """The logarithm of each class's share of the votes.

        Raises:
            MetarepError: the state is an index, and the queries are of several tasks, the index is empty, or the metric
                is not ``cosine``.
        """
        if isinstance(state, LabelledIndex):
            if len(query) != 1:
                raise MetarepError(f"the queries are of {len(query)} tasks, and a gallery is one task; give one task")
            shares, classes = self._votes(state, query[0])
            rows = shares.new_zeros(len(shares), state.ways).scatter_add_(1, classes.clamp_min(0), shares)
            return rows.clamp_min(1e-12).log().unsqueeze(0)
        return self._vote(self._near(query, state["support"]), state["onehot"])

    def familiarity(
        self,
        state: State,
        query: Float[Tensor, "task query dim"],
        logits: Float[Tensor, "task query ways"],  # noqa: ARG002 - the shares of votes do not say how near they are
    ) -> Float[Tensor, "task query"]:
        """The similarity of each query to the nearest support row."""
        return self._near(query, state["support"]).amax(-1)

    def held_out(
        self,
        support: Float[Tensor, "n dim"],
        labels: Int[Tensor, " n"],
        ways: int,
        folds: Sequence[Int[Tensor, " _"]],
    ) -> Float[Tensor, "tested ways"]:
        """Cross-validation scores: the rows of a fold do not vote for each other."""
        onehot, scores = functional.one_hot(labels, ways).to(support), []
        for out in folds:
            near = self._near(support[out], support).index_fill(1, out, float("-inf"))
            scores.append(self._vote(near, onehot, len(support) - len(out)))
        return torch.cat(scores)

    def rank(
        self, gallery: LabelledIndex, query: Float[Tensor, "query dim"]
    ) -> tuple[Float[Tensor, "query k"], Int[Tensor, "query k"]]:
        """The classes that got votes, best first, with their logits.

        It replaces :meth:`logits` where there are many classes: with 100,000 classes, a row of logits takes 400 kB, and
        all but ``k`` of its values are equal.

        Returns:
            Logits and classes; -inf and -1 behind the last class that got votes.

        Raises:
            MetarepError: the gallery is empty, or the metric is not ``cosine``.
        """
        shares, classes = self._votes(gallery, query)
        same = classes.unsqueeze(2) == classes.unsqueeze(1)
        total = (same * shares.unsqueeze(1)).sum(-1)
        later = (same & torch.ones_like(same[0]).tril(-1)).any(-1)  # a nearer row is of the same class
        total, order = total.masked_fill(later | (classes < 0), 0).sort(-1, descending=True)
        return total.log(), classes.gather(1, order).masked_fill(total == 0, -1)

    def _near(self, query: Tensor, support: Tensor) -> Tensor:
        """The similarity of each query to each support row."""
        if self.metric == "cosine":
            return self._features(query) @ self._features(support).mT
        return -squared_distances(query, support)

    def _features(self, rows: Tensor) -> Tensor:
        """Features as the metric compares them; on the unit sphere for the cosine."""
        return functional.normalize(rows, dim=-1) if self.metric == "cosine" and not self.unit else rows

    def _vote(self, near: Tensor, onehot: Tensor, voters: int | None = None) -> Tensor:
        """The logits from the similarities of all support rows. ``voters`` is the number of rows that may vote."""
        k = min(self.k, near.shape[-1] if voters is None else voters)
        if k < near.shape[-1]:
            floor = near.topk(k, dim=-1).values[..., -1:]
            near = near.masked_fill(near < floor, float("-inf"))
        return ((near / self.temperature).softmax(-1) @ onehot).clamp_min(1e-12).log()

    def _votes(self, gallery: LabelledIndex, query: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest rows of each query: their shares of the vote, and their classes."""
        if self.metric != "cosine":
            raise MetarepError(
                f"metric {self.metric!r} cannot search a gallery, which is searched by cosine; take cosine"
            )
        near, classes, _ = gallery.search(query, min(self.k, max(1, len(gallery))))
        return (near / self.temperature).softmax(-1), classes
