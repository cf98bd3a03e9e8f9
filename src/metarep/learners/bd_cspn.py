"""BDCSPN: class means that are rectified by the queries of the task; a transductive learner."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from metarep.encoders import Encoder
from metarep.errors import MetarepError, above
from metarep.learners.class_means import class_means
from metarep.learners.learner import Learner, Metric, State


class BDCSPN(Learner):
    """Class means by cosine that the queries of a task correct: it is **transductive**, and reports say so.

    Liu, Song, Qin, Prototype Rectification for Few-Shot Learning (BD-CSPN), 2020. First all queries are shifted by the
    difference of the means of support and queries. Then each query is given the class of the nearest prototype. The
    prototypes become weighted means of support and queries of the class; an image's weight is a softmax, within the
    class, of its cosine with the first prototype. Trap: the answer to a query depends on the other queries, and the
    shift expects them to be of all classes equally. Measured on unbalanced queries, much of the gain is lost (Veilleux
    et al., Realistic Evaluation of Transductive Few-Shot Learning, 2021), so rows also say how queries are balanced.

    Args:
        encoder: the representation. Features are put on the unit sphere first.
        temperature: divides the logits.
        epsilon: multiplies the cosines in the softmax of the weights. The paper has 10; with less, queries weigh more,
            which was better here.
        confident: number of queries of each class that correct its prototype, those with the largest cosines; 0 for
            all. The paper has 8.

    Raises:
        MetarepError: the temperature or ``epsilon`` is not above 0, or ``confident`` is below 0.

    >>> from metarep.encoders import Preprocess
    >>> learner = BDCSPN(Encoder(torch.nn.Flatten(), Preprocess((1, 2), 1, (0.0,), (1.0,))))
    >>> state = learner.adapt(torch.eye(2).unsqueeze(0), torch.tensor([[0, 1]]), ways=2)
    >>> learner.logits(state, torch.tensor([[[5.0, 1.0], [1.0, 5.0]]])).argmax(-1)
    tensor([[0, 1]])
    """

    protocol = "transductive"
    metric: Metric = "cosine"

    def __init__(self, encoder: Encoder, *, temperature: float = 0.1, epsilon: float = 2.0, confident: int = 8) -> None:
        super().__init__(encoder)
        above("temperature", temperature)
        above("epsilon", epsilon)
        if confident < 0:
            raise MetarepError(f"confident is a number of queries, 0 for all, and cannot be {confident}")
        self.temperature, self.epsilon, self.confident = temperature, epsilon, confident

    @property
    def kind(self) -> str:
        return "bd-cspn"

    @property
    def settings(self) -> dict[str, Any]:
        return {"temperature": self.temperature, "epsilon": self.epsilon, "confident": self.confident}

    def adapt(
        self, support: Float[Tensor, "task support dim"], labels: Int[Tensor, "task support"], ways: int
    ) -> State:
        """The support rows on the unit sphere, their one-hot classes, and the first prototypes."""
        rows = functional.normalize(support, dim=-1)
        member = functional.one_hot(labels, ways).to(rows)
        return {"support": rows, "member": member, "prototypes": class_means(rows, labels, ways)}

    def logits(self, state: State, query: Float[Tensor, "task query dim"]) -> Float[Tensor, "task query ways"]:
        """The cosines of all queries of each task with the rectified prototypes, divided by the temperature."""
        support, member, first = state["support"], state["member"], state["prototypes"]
        query = functional.normalize(query, dim=-1)
        query = query + support.mean(1, keepdim=True) - query.mean(1, keepdim=True)
        near = self._cosines(query, first)
        guessed = functional.one_hot(near.argmax(-1), first.shape[1]).to(near)
        if 0 < self.confident < query.shape[1]:
            ranked = near.masked_fill(guessed == 0, float("-inf"))
            guessed = guessed * (ranked >= ranked.topk(self.confident, dim=1).values[:, -1:])
        rows, shares = torch.cat([support, query], 1), torch.cat([member, guessed], 1)
        # The cosines are at most 1, so no sum overflows; a class without any row keeps a prototype of zeros.
        weights = shares * ((torch.cat([self._cosines(support, first), near], 1) - 1) * self.epsilon).exp()
        weights = weights / weights.sum(1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
        return self._cosines(query, weights.mT @ rows) / self.temperature

    def _cosines(self, rows: Tensor, prototypes: Tensor) -> Tensor:
        return functional.normalize(rows, dim=-1) @ functional.normalize(prototypes, dim=-1).mT
