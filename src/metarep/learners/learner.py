"""Learner: the base class of what is deployed, an encoder with a way to solve new tasks."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Float, Int, Num, Shaped
from torch import Tensor, nn

from metarep.encoders import Encoder
from metarep.encoders.low_rank import merge_encoder
from metarep.encoders.normalisation import Normalisation
from metarep.errors import Advice, MetarepError
from metarep.learners.distances import task_cross_entropy

Metric = Literal["euclidean", "cosine"]
State = dict[str, Tensor]
"""The result of adaptation to a support set: tensors by name, each with the task axis first."""


class Learner(nn.Module, ABC):
    """Solves a new task from its support set: ``prepare`` images, ``adapt`` to the support, compute ``logits``.

    Training, ``evaluate`` and serving call the same three functions, so what is measured is what is used. Everything is
    batched over tasks. The result of a query does not depend on other queries, unless ``protocol`` is transductive.

    Args:
        encoder: the representation.

    Attributes:
        protocol: ``inductive`` or ``transductive``, for reports.
        normalisation: which statistics batch norms use, for reports.
        ways: number of classes that a task must have; None for any number.
        of_copies: whether ``prepare`` also encodes augmented copies of an image, so that it needs the image.

    >>> from metarep.encoders import Preprocess
    >>> class Nearest(Learner):
    ...     def adapt(self, support, labels, ways):
    ...         return {"support": support, "onehot": torch.nn.functional.one_hot(labels, ways).float()}
    ...
    ...     def logits(self, state, query):
    ...         return (query @ state["support"].mT) @ state["onehot"]
    >>> learner = Nearest(Encoder(nn.Flatten(), Preprocess((1, 2), 1, (0.0,), (1.0,))))
    >>> state = learner.adapt(torch.eye(2).unsqueeze(0), torch.tensor([[1, 0]]), ways=2)
    >>> learner.logits(state, torch.tensor([[[5.0, 0.0]]]))
    tensor([[[0., 5.]]])
    """

    protocol: str = "inductive"
    normalisation: str = "running"
    ways: int | None = None
    of_copies: bool = False
    metric: Metric = "euclidean"  # in which features are near each other
    level: bool = False  # whether it allows for classes of different sizes
    chosen: str = ""  # what --learner says to get it, where settings were chosen

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    @property
    def device(self) -> torch.device:
        """The device of its parameters; the CPU if it has none."""
        return next(self.parameters(), torch.zeros(())).device

    @property
    def called(self) -> str:
        """Its name in reports: what ``--learner`` says to get it, where settings were chosen, or else its kind."""
        return self.chosen or self.kind

    @property
    def kind(self) -> str:
        """The name of what it does, without the settings that were chosen."""
        return type(self).__name__.lower()

    @property
    def state_numbers(self) -> int:
        """About how many values the state of one task holds, if they are many; evaluation then batches fewer tasks."""
        return 0

    def merge_updates(self) -> None:
        """Put low-rank updates that a training has trained into the weights of the encoder."""
        merge_encoder(self.encoder)

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
                "other normalisation or test_steps are for learners that take gradient steps, and "
                f"{type(self).__name__} does not",
                advice=Advice("try {learner}", learner="descent"),
            )
        yield

    def undecayed(self) -> list[nn.Parameter]:
        """Parameters without weight decay, in addition to norm scales and biases."""
        return []

    def embed(self, x: Num[Tensor, "b c h w"]) -> Float[Tensor, "b dim"]:
        """The representation of images: for maps, search and other learners."""
        return self.encoder(x)

    def prepare(self, x: Num[Tensor, "b c h w"]) -> Shaped[Tensor, "b *row"]:
        """The part of the computation that is the same for all tasks; ``evaluate`` runs it once an image.

        By default it gives the representation of the image.
        """
        return self.embed(x)

    def settle(self, rows: Shaped[Tensor, "n *row"]) -> Shaped[Tensor, "n *row"]:
        """What ``adapt`` and ``logits`` do to an image in every task alike, such as to normalise it.

        ``evaluate`` runs it once an image, after ``prepare``, and then uses the learner from :meth:`settled`. By
        default it does nothing.
        """
        return rows

    def settled(self) -> "Learner":
        """The same learner for rows that :meth:`settle` has given; its answers are the same to the last digit."""
        return self

    def features_of(self, rows: Shaped[Tensor, "n *row"]) -> Float[Tensor, "n dim"]:
        """The representation of images from their prepared rows, which by default is the rows themselves.

        A learner that adapts the encoder to each task prepares images, which are then embedded here.
        """
        return rows if rows.ndim == 2 else self.embed(rows)

    @abstractmethod
    def adapt(
        self, support: Shaped[Tensor, "task support *row"], labels: Int[Tensor, "task support"], ways: int
    ) -> State:
        """Learn each task from its support set.

        Args:
            support: prepared rows of the support images.
            labels: the class of each row, 0 to ``ways - 1``. Classes may have different numbers of rows.
            ways: number of classes.

        Returns:
            The state that :meth:`logits` needs.
        """

    @abstractmethod
    def logits(self, state: State, query: Shaped[Tensor, "task query *row"]) -> Float[Tensor, "task query ways"]:
        """The score of each class for each query row; the highest one is the prediction."""

    def familiarity(
        self,
        state: State,  # noqa: ARG002
        query: Shaped[Tensor, "task query *row"],  # noqa: ARG002 - for learners whose logits do not say it
        logits: Float[Tensor, "task query ways"],
    ) -> Float[Tensor, "task query"]:
        """How well each query fits the task: the higher, the more likely it is of one of its classes.

        By default it is the highest logit: for prototypes the similarity to the nearest one. The highest probability
        would only compare the classes with each other, and a query that is far from all of them may have a high one.

        Args:
            state: of :meth:`adapt`.
            query: the rows of the queries.
            logits: of these queries, from :meth:`logits`.
        """
        return logits.amax(-1)

    def held_out(
        self,
        support: Shaped[Tensor, "n *row"],
        labels: Int[Tensor, " n"],
        ways: int,
        folds: Sequence[Int[Tensor, " _"]],
    ) -> Float[Tensor, "tested ways"]:
        """Cross-validation scores: each fold is scored by a learner that was adapted to all other images.

        This method adapts once a fold; some learners have a faster way.

        Args:
            support, labels, ways: one support set.
            folds: for each fold, the numbers of its rows. A fold must not hold all images of a class.

        Returns:
            The scores of the rows of all folds, one fold after the other.
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
        """Leave-one-out scores: each image is scored by a learner that was adapted to all other images.

        The class of this image then has one image less than the others, so accuracies of few images come out too low
        (see :func:`metarep.model.trust.folds.deal_folds`). An image that is alone in its class cannot be left out; its
        scores are those of a learner that was adapted to all images.

        Args:
            support, labels, ways: one support set.

        Returns:
            The scores of each row, in order.
        """
        alone = labels.bincount(minlength=ways)[labels] < 2
        rows = torch.arange(len(labels), device=labels.device)[~alone]
        scores = self.logits(self.adapt(support.unsqueeze(0), labels.unsqueeze(0), ways), support.unsqueeze(0))[0]
        if alone.all():
            return scores
        return scores.index_copy(0, rows, self.held_out(support, labels, ways, list(rows.split(1))))

    def task_loss(
        self,
        support: Shaped[Tensor, "task support *row"],
        support_y: Int[Tensor, "task support"],
        query: Shaped[Tensor, "task query *row"],
        query_y: Int[Tensor, "task query"],
        ways: int,
    ) -> Float[Tensor, ""]:
        """The training loss of a batch of tasks: cross-entropy of the queries after adaptation to the support.

        It is the mean over queries, then over tasks.
        """
        return task_cross_entropy(self.logits(self.adapt(support, support_y, ways), query), query_y)
