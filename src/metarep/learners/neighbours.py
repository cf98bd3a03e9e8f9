"""Neighbours: the k nearest support images vote."""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from metarep.encoders import Encoder
from metarep.learners.learner import Learner, State
from metarep.learners.prototypes import Metric
from metarep.losses import squared_distances


class Neighbours(Learner):
    """k nearest neighbours with distance-weighted votes.

    The nearest ``k`` support rows (all of them if there are fewer) share one vote, weighted by a softmax of their
    similarity; the logits are the logarithm of each class's share. With ``k=1`` this is the nearest neighbour.

    Args:
        encoder: the representation.
        k: neighbours that vote.
        metric: ``cosine``, or ``euclidean`` (minus the squared distance).
        temperature: divides the similarities in the softmax; smaller trusts the nearest more.
    """

    def __init__(self, encoder: Encoder, k: int = 1, metric: Metric = "cosine", temperature: float = 0.1) -> None:
        super().__init__(encoder)
        self.k, self.metric, self.temperature = k, metric, temperature

    def adapt(
        self, support: Float[Tensor, "task support dim"], labels: Int[Tensor, "task support"], ways: int
    ) -> State:
        return {"support": support, "onehot": functional.one_hot(labels, ways).to(support)}

    def logits(self, state: State, query: Float[Tensor, "task query dim"]) -> Float[Tensor, "task query ways"]:
        support = state["support"]
        if self.metric == "cosine":
            near = functional.normalize(query, dim=-1) @ functional.normalize(support, dim=-1).mT
        else:
            near = -squared_distances(query, support)
        k = min(self.k, support.shape[1])
        if k < support.shape[1]:
            floor = near.topk(k, dim=-1).values[..., -1:]
            near = near.masked_fill(near < floor, float("-inf"))
        shares = (near / self.temperature).softmax(-1) @ state["onehot"]
        return shares.clamp_min(1e-12).log()
