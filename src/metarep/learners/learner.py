"""Learner: what is deployed. What is prepared once for all tasks, and what is adapted to each."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int, Num, Shaped
from torch import Tensor, nn

from metarep.encoders import Encoder
from metarep.losses import task_cross_entropy

LEFT_OUT = 32_000_000  # numbers of support rows held at a time when each image is left out once
GROUPS = 50  # in which more images than that are left out

State = dict[str, Tensor]  # what adaptation made of a support set; every tensor has the task axis first


class Learner(nn.Module, ABC):
    """Solves a new task from its support set: ``prepare`` images, ``adapt`` to the support, give ``logits``.

    Training, ``evaluate`` and serving all call the same three functions, so what is measured is what is used.
    Everything is batched over tasks, and nothing a query gets depends on another query, unless ``protocol`` says so.

    ``protocol`` is ``inductive`` or ``transductive``, ``normalisation`` says whose statistics norm layers use, and
    ``ways`` how many classes a task must have (None: any); reports print the first two.

    Args:
        encoder: the representation.
    """

    protocol: str = "inductive"
    normalisation: str = "running"
    ways: int | None = None

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    @property
    def device(self) -> torch.device:
        """Where its parameters are; the CPU if it has none."""
        return next(self.parameters(), torch.zeros(())).device

    @property
    def called(self) -> str:
        """Its name in reports and on the command line."""
        return type(self).__name__.lower()

    @property
    def state_numbers(self) -> int:
        """About how many numbers the state of one task holds, where they are many: evaluation takes fewer at a time."""
        return 0

    def undecayed(self) -> list[nn.Parameter]:
        """Parameters besides norm scales and biases that weight decay must leave alone."""
        return []

    def embed(self, x: Num[Tensor, "b c h w"]) -> Float[Tensor, "b dim"]:
        """The representation of images: for maps, search and other learners."""
        return self.encoder(x)

    def prepare(self, x: Num[Tensor, "b c h w"]) -> Shaped[Tensor, "b *row"]:
        """What all tasks share of an image; ``evaluate`` computes it once an image. By default its representation."""
        return self.embed(x)

    @abstractmethod
    def adapt(
        self, support: Shaped[Tensor, "task support *row"], labels: Int[Tensor, "task support"], ways: int
    ) -> State:
        """Learn each task from its prepared support rows; shots may differ between classes."""

    @abstractmethod
    def logits(self, state: State, query: Shaped[Tensor, "task query *row"]) -> Float[Tensor, "task query ways"]:
        """Scores of each class for each query row; higher is better."""

    def leave_one_out(
        self, support: Shaped[Tensor, "n *row"], labels: Int[Tensor, " n"], ways: int
    ) -> Float[Tensor, "n ways"]:
        """What each image of one support set would be told by a learner adapted to all the others.

        Here by adapting once an image; learners that know a formula use it. More than ``GROUPS`` images are left out in
        so many groups, a class spread over as many of them as it can be. The rows of images that are alone in their
        class say nothing of that class.
        """
        n, places, found = len(support), [], []
        each = torch.arange(n, device=labels.device)
        for group in spread_groups(labels, GROUPS):
            for out in group.split(max(1, LEFT_OUT // max(1, support[:1].numel() * n))):
                stays = torch.ones(len(out), n, dtype=torch.bool, device=labels.device).scatter_(1, out, False)
                others = each.expand(len(out), n)[stays].view(len(out), -1)
                state = self.adapt(support[others], labels[others], ways)
                places.append(out.flatten())
                found.append(self.logits(state, support[out]).flatten(0, 1))
        return torch.cat(found)[torch.cat(places).argsort()]

    def task_loss(
        self,
        support: Shaped[Tensor, "task support *row"],
        support_y: Int[Tensor, "task support"],
        query: Shaped[Tensor, "task query *row"],
        query_y: Int[Tensor, "task query"],
        ways: int,
        *,
        progress: float = 1.0,  # noqa: ARG002 - for learners whose loss changes as training goes
    ) -> Float[Tensor, ""]:
        """Cross-entropy of the queries under what is deployed; the mean over queries, then over tasks."""
        return task_cross_entropy(self.logits(self.adapt(support, support_y, ways), query), query_y)


def spread_groups(labels: Int[Tensor, " n"], most: int) -> list[Int[Tensor, "group size"]]:
    """All rows in at most so many groups, each class in as many of them as it can be; a tensor for each size of group.

    >>> [groups.tolist() for groups in spread_groups(torch.tensor([0, 0, 1, 1, 1]), 3)]
    [[[0, 3], [1, 4]], [[2]]]
    """
    order = labels.argsort(stable=True)
    groups = min(most, len(order))
    size, over = divmod(len(order), max(1, groups))
    whole, rest = order[: size * groups].view(size, groups).mT, order[size * groups :]
    return [some for some in (torch.cat([whole[:over], rest.unsqueeze(1)], 1), whole[over:]) if len(some)]
