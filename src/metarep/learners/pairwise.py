"""Pairwise: classification by a learned comparison of a query with each support image."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from metarep.encoders import Encoder
from metarep.learners.learner import Learner, State


class Pairwise(Learner):
    """Scores "the same class" for pairs of images by a weighted sum of |feature differences|.

    The score of a class is the mean over its support images. This is the head of Koch et al., Siamese Neural Networks
    for One-shot Image Recognition, 2015.

    Args:
        encoder: the representation. Its features pass a sigmoid before they are compared, as in the paper.

    >>> from metarep.encoders import Preprocess
    >>> learner = Pairwise(Encoder(torch.nn.Flatten(), Preprocess((1, 1), 1, (0.0,), (1.0,))))
    >>> learner.compare(torch.tensor([[0.0]]), torch.tensor([[0.0], [9.0]])).detach().round(decimals=1)
    tensor([[  4., -12.]])
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        # Before training, two images differ by about 0.15 a feature. With these weights, logits have both signs.
        self.weight = nn.Parameter(torch.full((encoder.dim,), -32 / encoder.dim))
        self.bias = nn.Parameter(torch.full((), 4.0))

    def compare(self, x: Float[Tensor, "*task a dim"], y: Float[Tensor, "*task b dim"]) -> Float[Tensor, "*task a b"]:
        """The logits of "the same class" for all pairs of rows: a weighted city-block distance plus a bias.

        Weights may have both signs, so it is computed as the difference of two city-block distances. The feature
        differences of the pairs are never stored; they would take gigabytes for 20-way 5-shot tasks.
        """
        x, y = x.sigmoid(), y.sigmoid()
        more, less = self.weight.clamp_min(0), (-self.weight).clamp_min(0)
        return torch.cdist(x * more, y * more, p=1) - torch.cdist(x * less, y * less, p=1) + self.bias

    def adapt(
        self, support: Float[Tensor, "task support dim"], labels: Int[Tensor, "task support"], ways: int
    ) -> State:
        """The support rows, and the share of each row in the mean of its class."""
        member = functional.one_hot(labels, ways).to(support)
        return {"support": support, "shares": member / member.sum(1, keepdim=True).clamp_min(1)}

    def logits(self, state: State, query: Float[Tensor, "task query dim"]) -> Float[Tensor, "task query ways"]:
        """The mean logit of "the same class" over the support images of each class."""
        return self.compare(query, state["support"]) @ state["shares"]
