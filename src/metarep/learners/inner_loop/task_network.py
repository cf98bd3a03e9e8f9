"""TaskNetwork: what the inner loop asks of a network, whether it runs one task or many at once."""

from abc import ABC, abstractmethod

from jaxtyping import Float, Int
from torch import Tensor

from metarep.encoders.normalisation import Statistics
from metarep.learners.inner_loop.head import Head
from metarep.learners.inner_loop.slope import SupportFormula, Weights


class TaskNetwork(ABC):
    """An encoder's body and a linear head as a function of weights.

    It runs one task; or many tasks at once, and then all tensors have the task axis first and a loss is a sum over it.

    ``checked`` says whether a loss that is not finite is to be noticed at once. ``looked_through`` says whether the
    graph of its gradient is known to be one that can be differentiated. ``formula`` computes the support's derivatives
    without autograd, where that is possible.
    """

    checked: bool = True
    looked_through: bool = False
    formula: SupportFormula | None = None

    @abstractmethod
    def leaves(self, weights: Weights) -> list[Tensor]:
        """The weights as leaves of a new graph, in this network's memory format."""

    @abstractmethod
    def classifier(
        self, head: Head, ways: int, features: Float[Tensor, "*task n dim"] | None, labels: Int[Tensor, "*task n"]
    ) -> tuple[Tensor, Tensor]:
        """Weight and bias where the head of each task starts."""

    @abstractmethod
    def loss(self, logits: Float[Tensor, "*task n ways"], labels: Int[Tensor, "*task n"]) -> Float[Tensor, ""]:
        """The mean cross-entropy; of many tasks the sum over them."""

    @abstractmethod
    def support_logits(
        self, weights: Weights, x: Float[Tensor, "*task support c h w"], *, record: bool = False
    ) -> Float[Tensor, "*task support ways"]:
        """Scores of the support images, under their own statistics, which ``record`` keeps."""

    @abstractmethod
    def query_logits(
        self,
        weights: Weights,
        query: Float[Tensor, "*task query c h w"],
        support: Float[Tensor, "*task support c h w"] | None = None,
        statistics: Statistics | None = None,
    ) -> Float[Tensor, "*task query ways"]:
        """Scores of the queries: under the support's statistics (taken of ``support``, or given), or their own."""

    @abstractmethod
    def features(self, body: Weights, x: Float[Tensor, "*task b c h w"]) -> Float[Tensor, "*task b dim"]:
        """Features under the statistics of ``x`` itself (or the running ones)."""

    @abstractmethod
    def seen(self) -> Statistics:
        """The batch statistics of the last pass that was asked to record them."""
