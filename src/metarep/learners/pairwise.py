"""Pairwise: a learned comparison of two images, and the class whose support compares best."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from metarep.encoders import Encoder
from metarep.learners.learner import Learner, State


class Pairwise(Learner):
    """Scores "the same class" by a weighted sum of |feature differences|; a class gets the mean over its support.

    The head of Koch et al., Siamese Neural Networks for One-shot Image Recognition, 2015.

    Args:
        encoder: the representation. Its features pass a sigmoid before they are compared, as in the paper.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        # At the start two images differ by about 0.15 a feature: logits then lie on both sides of zero.
        self.weight = nn.Parameter(torch.full((encoder.dim,), -32 / encoder.dim))
        self.bias = nn.Parameter(torch.full((), 4.0))

    def compare(self, x: Float[Tensor, "*task a dim"], y: Float[Tensor, "*task b dim"]) -> Float[Tensor, "*task a b"]:
        """Logits of "the same class" for all pairs of rows: a weighted city-block distance, and a bias.

        Weights of both signs make it the difference of two such distances, so that no difference of a pair is ever
        stored (20-way 5-shot tasks would take gigabytes).
        """
        x, y = x.sigmoid(), y.sigmoid()
        more, less = self.weight.clamp_min(0), (-self.weight).clamp_min(0)
        return torch.cdist(x * more, y * more, p=1) - torch.cdist(x * less, y * less, p=1) + self.bias

    def adapt(
        self, support: Float[Tensor, "task support dim"], labels: Int[Tensor, "task support"], ways: int
    ) -> State:
        member = functional.one_hot(labels, ways).to(support)
        return {"support": support, "shares": member / member.sum(1, keepdim=True).clamp_min(1)}

    def logits(self, state: State, query: Float[Tensor, "task query dim"]) -> Float[Tensor, "task query ways"]:
        return self.compare(query, state["support"]) @ state["shares"]
