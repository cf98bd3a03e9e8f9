"""Head: the linear classifier on the features, as the inner loop starts from it."""

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from metarep.errors import Advice, MetarepError, above, one_of
from metarep.learners.class_means import class_means

HeadKind = Literal["rows", "shared", "prototype"]
TaskHead = Literal["rows", "shared", "prototype", "cosine"]  # of learners that adapt the head only
Classifier = tuple[Float[Tensor, "*task ways dim"], Float[Tensor, "*task ways"]]  # weight and bias


class Head(nn.Module):
    """The linear classifier that each task starts from.

    ``rows``: one learned row for each class, as in the papers; every task must have that number of classes.
    ``shared``: one learned row for all classes, so tasks may have any number of classes. ``prototype``: the nearest
    class mean as a linear layer, with weight ``2 c`` and bias ``-|c|**2`` for a mean ``c``; nothing is learned
    (Triantafillou et al., Meta-Dataset, 2020). ``cosine``: the same for features and weights of length 1, as a cosine
    classifier (Chen et al., A Closer Look at Few-shot Classification, 2019). Large features make the logits of the
    other heads so large that gradients vanish.

    Args:
        kind: ``rows``, ``shared``, ``prototype`` or ``cosine``.
        dim: number of features.
        ways: number of classes of every task, for ``rows``.
        temperature: divides the cosines of ``cosine``.

    >>> features = torch.tensor([[[1.0, 0.0], [0.0, 3.0]]])
    >>> weight, bias = Head("prototype", 2, 2).start(2, features, torch.tensor([[0, 1]]))
    >>> weight.tolist(), bias.tolist()
    ([[[2.0, 0.0], [0.0, 6.0]]], [[-1.0, -9.0]])
    """

    def __init__(self, kind: TaskHead, dim: int, ways: int, temperature: float = 0.1) -> None:
        super().__init__()
        one_of("head", kind, get_args(TaskHead))
        above("temperature", temperature)
        self.kind, self.ways = kind, ways
        self.temperature = temperature if kind == "cosine" else None
        if kind in ("rows", "shared"):
            layer = nn.Linear(dim, ways if kind == "rows" else 1)
            self.weight, self.bias = layer.weight, layer.bias

    def start(
        self, ways: int, features: Float[Tensor, "task support dim"] | None, labels: Int[Tensor, "task support"]
    ) -> Classifier:
        """Returns the weight and bias of each task before its first step.

        Args:
            ways: number of classes of the tasks.
            features: features of the support images; only ``prototype`` and ``cosine`` need them.
            labels: classes of the support images.

        Raises:
            MetarepError: ``ways`` differs from the number of rows (``rows``).
        """
        tasks = len(labels)
        if self.kind == "rows":
            if ways != self.ways:
                raise MetarepError(
                    f"this learner has a head of {self.ways} rows, one for each class, and cannot take a task of "
                    f"{ways} ways",
                    advice=(f"draw tasks of {self.ways} ways", Advice("train with {head} or shared", head="prototype")),
                )
            return self.weight.expand(tasks, -1, -1), self.bias.expand(tasks, -1)
        if self.kind == "shared":
            return self.weight.expand(tasks, ways, -1), self.bias.expand(tasks, ways)
        assert features is not None
        if self.kind == "cosine":
            means = class_means(functional.normalize(features, dim=-1), labels, ways)
            return functional.normalize(means, dim=-1), means.new_zeros(tasks, ways)
        means = class_means(features, labels, ways)
        return 2 * means, -means.square().sum(-1)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of weight and bias; ``()`` for both if they depend on the task."""
        return [tuple(self.weight.shape), tuple(self.bias.shape)] if self.kind == "rows" else [(), ()]


def refuse_missing_classes(labels: Int[Tensor, "task support"], ways: int) -> None:
    """Raises if a class of a task has no support image: gradient steps would only lower its logit.

    Raises:
        MetarepError: a class has no support image. The message names the task and the class.
    """
    present = torch.zeros(len(labels), ways, dtype=torch.bool, device=labels.device)
    present.scatter_(1, labels, torch.ones_like(labels, dtype=torch.bool))
    if not present.all():
        task, way = (~present).nonzero()[0].tolist()
        raise MetarepError(
            f"task {task} has no support image of class {way}; gradient descent needs at least one image of each class"
        )
