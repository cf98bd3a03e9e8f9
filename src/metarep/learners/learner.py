"""Learner: what is deployed. What is prepared once for all tasks, and what is adapted to each."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Float, Int, Num, Shaped
from torch import Tensor, nn

from metarep.encoders import Encoder
from metarep.errors import MetarepError
from metarep.learners.distances import task_cross_entropy
from metarep.normalisation import Normalisation

Metric = Literal["euclidean", "cosine"]
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
    metric: Metric = "euclidean"  # in which features are near each other

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

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of its constructor beside the encoder; a checkpoint keeps them."""
        return {}

    @contextmanager
    def using(self, normalisation: Normalisation | None = None, test_steps: int | None = None) -> Iterator[None]:
        """Measure with other statistics or another number of inner steps for a while; None for the learner's own.

        Raises:
            MetarepError: this learner takes no gradient steps, or adapts no norm layer.
        """
        if normalisation is not None or test_steps is not None:
            raise MetarepError(
                f"--normalisation and --test-steps are for learners that take gradient steps; {type(self).__name__} "
                "does not. Try --learner descent"
            )
        yield

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

    def held_out(
        self,
        support: Shaped[Tensor, "n *row"],
        labels: Int[Tensor, " n"],
        ways: int,
        folds: Sequence[Int[Tensor, " _"]],
    ) -> Float[Tensor, "tested ways"]:
        """What the images of each fold would be told by a learner adapted to all images but those of the fold.

        Here by adapting once a fold; learners that know a shorter way use it.

        Args:
            support, labels, ways: one support set.
            folds: the rows that are left out together. No fold may hold all images of a class.

        Returns:
            Scores of the rows of all folds, one fold after the other.
        """
        scores = []
        for out in folds:
            stays = torch.ones_like(labels, dtype=torch.bool).index_fill(0, out, False)
            state = self.adapt(support[stays].unsqueeze(0), labels[stays].unsqueeze(0), ways)
            scores.append(self.logits(state, support[out].unsqueeze(0))[0])
        return torch.cat(scores)

    def leave_one_out(
        self, support: Shaped[Tensor, "n *row"], labels: Int[Tensor, " n"], ways: int
    ) -> Float[Tensor, "n ways"]:
        """What each image of one support set would be told by a learner adapted to all the others.

        Its class alone is then one image short, so this underrates a learner of few images; see
        :func:`metarep.folds.deal_folds`. An image that is alone in its class cannot be left out: its row holds the
        scores of the learner that has seen it.
        """
        alone = labels.bincount(minlength=ways)[labels] < 2
        each = torch.arange(len(labels), device=labels.device)
        found = self.logits(self.adapt(support.unsqueeze(0), labels.unsqueeze(0), ways), support.unsqueeze(0))[0]
        if alone.all():
            return found
        return found.index_copy(0, each[~alone], self.held_out(support, labels, ways, list(each[~alone].split(1))))

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
