"""TaskNetwork: the interface that the inner loop needs of a network, for one task or for many at once."""

from abc import ABC, abstractmethod

from jaxtyping import Float, Int
from torch import Tensor

from metarep.encoders.normalisation import Statistics
from metarep.learners.inner_loop.head import Head
from metarep.learners.inner_loop.support_gradient import SupportFormula, Weights


class TaskNetwork(ABC):
    """An encoder's body and a linear head as a function of weights.

    It runs one task, or many tasks at once. For many tasks all tensors have the task axis first, and a loss is the sum
    over the tasks.

    Attributes:
        checked: whether a NaN or infinite loss raises at once. On a GPU that needs a host synchronisation.
        looked_through: whether the graph of its gradient is known to be differentiable.
        formula: computes the support gradient and its Hessian-vector product without autograd; None if there is no
            formula for this network.
    """

    checked: bool = True
    looked_through: bool = False
    formula: SupportFormula | None = None

    @abstractmethod
    def leaves(self, weights: Weights) -> list[Tensor]:
        """Returns copies of the weights as leaves of a new graph, in this network's memory format."""

    @abstractmethod
    def classifier(
        self, head: Head, ways: int, features: Float[Tensor, "*task n dim"] | None, labels: Int[Tensor, "*task n"]
    ) -> tuple[Tensor, Tensor]:
        """Returns the weight and bias that the head of each task starts from."""

    @abstractmethod
    def loss(self, logits: Float[Tensor, "*task n ways"], labels: Int[Tensor, "*task n"]) -> Float[Tensor, ""]:
        """Returns the mean cross-entropy; for many tasks, the sum over them."""

    @abstractmethod
    def support_logits(
        self, weights: Weights, x: Float[Tensor, "*task support c h w"], *, record: bool = False
    ) -> Float[Tensor, "*task support ways"]:
        """Returns the logits of the support images under their own batch statistics, which ``record`` keeps."""

    @abstractmethod
    def query_logits(
        self,
        weights: Weights,
        query: Float[Tensor, "*task query c h w"],
        support: Float[Tensor, "*task support c h w"] | None = None,
        statistics: Statistics | None = None,
    ) -> Float[Tensor, "*task query ways"]:
        """Returns the logits of the queries.

        Args:
            weights: weights of body and head.
            query: preprocessed images.
            support: support images whose batch statistics the norm layers use.
            statistics: batch statistics to use instead, computed before.
        """

    @abstractmethod
    def features(self, body: Weights, x: Float[Tensor, "*task b c h w"]) -> Float[Tensor, "*task b dim"]:
        """Returns the features of ``x`` under its own batch statistics (or the running ones)."""

    @abstractmethod
    def seen(self) -> Statistics:
        """Returns the batch statistics of the last pass that recorded them."""
