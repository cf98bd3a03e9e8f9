"""Head: the linear classifier that the inner loop starts from."""

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from metarep.errors import Advice, MetarepError, one_of
from metarep.learners.class_means import class_means

HeadKind = Literal["rows", "shared", "prototype"]
Classifier = tuple[Float[Tensor, "*task ways dim"], Float[Tensor, "*task ways"]]  # weight and bias


class Head(nn.Module):
    """Where the classifier of a task starts.

    ``rows``: one learned row a way, as in the papers; tasks of that many ways only. ``shared``: one learned row for all
    ways, so tasks may have any number of them. ``prototype``: nearest class mean written as a linear layer, weight
    ``2 c`` and bias ``-|c|**2`` (Triantafillou et al., Meta-Dataset, 2020), nothing to learn.

    Args:
        kind: one of these.
        dim: features.
        ways: of every task (``rows``).
    """

    def __init__(self, kind: HeadKind, dim: int, ways: int) -> None:
        super().__init__()
        one_of("head", kind, get_args(HeadKind))
        self.kind, self.ways = kind, ways
        if kind != "prototype":
            layer = nn.Linear(dim, ways if kind == "rows" else 1)
            self.weight, self.bias = layer.weight, layer.bias

    def start(
        self, ways: int, features: Float[Tensor, "task support dim"] | None, labels: Int[Tensor, "task support"]
    ) -> Classifier:
        """The classifier of each task before its first step; ``features`` matter to ``prototype`` alone.

        Raises:
            MetarepError: tasks of another number of ways than there are rows.
        """
        tasks = len(labels)
        if self.kind == "rows":
            if ways != self.ways:
                raise MetarepError(
                    f"this learner has a head of {self.ways} rows, one a way, and cannot take a task of {ways} ways",
                    advice=(f"draw tasks of {self.ways} ways", Advice("train with {head} or shared", head="prototype")),
                )
            return self.weight.expand(tasks, -1, -1), self.bias.expand(tasks, -1)
        if self.kind == "shared":
            return self.weight.expand(tasks, ways, -1), self.bias.expand(tasks, ways)
        assert features is not None
        means = class_means(features, labels, ways)
        return 2 * means, -means.square().sum(-1)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of weight and bias, where they are the same in every task."""
        return [tuple(self.weight.shape), tuple(self.bias.shape)] if self.kind == "rows" else [(), ()]


def refuse_missing_classes(labels: Int[Tensor, "task support"], ways: int) -> None:
    """Raise if a task's support lacks a class: its row would only ever be pushed down.

    Raises:
        MetarepError: it names the task and the class.
    """
    present = torch.zeros(len(labels), ways, dtype=torch.bool, device=labels.device)
    present.scatter_(1, labels, torch.ones_like(labels, dtype=torch.bool))
    if not present.all():
        task, way = (~present).nonzero()[0].tolist()
        raise MetarepError(f"task {task} has no support image of class {way}; gradient descent needs one of each class")
