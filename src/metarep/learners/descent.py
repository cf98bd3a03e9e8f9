"""GradientDescent: solves a task by a few gradient steps from a learned start."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int, Num, Shaped
from torch import Tensor, nn
from torch.nn import functional

from metarep.encoders import Encoder
from metarep.encoders.low_rank import add_low_rank, low_rank_parameters
from metarep.encoders.normalisation import Normalisation
from metarep.errors import MetarepError, counted, one_of
from metarep.learners.inner_loop import (
    Adam,
    Adapted,
    Head,
    InnerLoop,
    RateKind,
    Rates,
    Start,
    Task,
    TaskHead,
    adapt_tasks,
    check_settings,
    descend_head,
    meta_loss,
    query_logits,
    refuse_idle_steps,
    refuse_missing_classes,
)
from metarep.learners.inner_loop.adam import mean_moments
from metarep.learners.inner_loop.meta_loss import Path
from metarep.learners.inner_loop.scope import positions_in, rank_of
from metarep.learners.learner import Learner, State


class GradientDescent(Learner):
    """A linear classifier after gradient steps on the support set, of all weights or of the head only.

    Finn, Abbeel, Levine, Model-Agnostic Meta-Learning, 2017; Raghu et al., Rapid Learning or Feature Reuse?, 2020 (the
    head only). Trap: nearly all published code normalises by the batch statistics of the queries, so the answer to a
    query depends on the other queries. ``normalisation="transductive"`` reproduces that, and the report says so.

    Args:
        encoder: the representation to start from; any module, without special layers.
        ways: number of classes of a task, for ``rows``.
        head: ``rows``, ``shared``, ``prototype``, or with the scope ``head`` also ``cosine``, for features of any
            scale; see :class:`metarep.learners.inner_loop.Head`.
        scope: what the steps change besides the head: ``all``, ``all-but-norms`` (not scale and bias of norm layers),
            ``norms`` (only those), ``last-block``, ``lora:RANK`` (only low-rank updates of a copy of the encoder, see
            :mod:`metarep.encoders.low_rank`), or ``head``. Frozen parameters (``requires_grad=False``) stay.
        steps: number of inner steps in training; also at test time, unless ``test_steps`` is given.
        inner_lr: inner learning rate, or the initial value of learned rates; None for 0.5 of the head ``cosine`` and
            0.01 of the others.
        test_steps: number of inner steps at test time.
        rates: ``fixed``, ``parameter`` (Meta-SGD) or ``layer`` (one rate for each tensor and step).
        normalisation: which statistics the norm layers use: ``support``, ``transductive`` or ``running``. With the
            scope ``head`` it is always ``running``, so that features can be cached.
        adaptation: ``sgd``, or ``adam`` (without a first moment, as in Reptile).
        minibatch: number of support images of an inner step; 0 for all.
        temperature: divides the cosines of ``head="cosine"``.

    Raises:
        MetarepError: a setting is invalid, or two settings exclude each other. The message says why.

    >>> from metarep import Preprocess
    >>> encoder = Encoder(nn.Flatten(), Preprocess((1, 1), 1, (0.0,), (1.0,)))
    >>> learner, support = GradientDescent(encoder, head="shared", inner_lr=1.0).eval(), torch.tensor([[[0.0], [2.0]]])
    >>> def probability(steps):  # that the second support image is of its class
    ...     learner.use(test_steps=steps)
    ...     return learner.logits(learner.adapt(support, torch.tensor([[0, 1]]), 2), support).softmax(2)[0, 1, 1].item()
    >>> [round(probability(steps), 2) for steps in (0, 1, 10)]
    [0.5, 0.88, 0.95]
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        ways: int = 5,
        head: TaskHead = "prototype",
        scope: str = "head",
        steps: int = 10,
        inner_lr: float | None = None,
        test_steps: int | None = None,
        rates: RateKind = "fixed",
        normalisation: Normalisation = "support",
        adaptation: Literal["sgd", "adam"] = "sgd",
        minibatch: int = 0,
        temperature: float = 0.1,
    ) -> None:
        if (rank := rank_of(scope)) and not low_rank_parameters(encoder.body):
            encoder = copy.deepcopy(encoder)  # the given one stays plain
            add_low_rank(encoder.body, rank)
        super().__init__(encoder)
        one_of("normalisation", normalisation, get_args(Normalisation))
        check_settings(scope, head, rates, adaptation, minibatch, steps, test_steps)
        self.steps, self.test_steps = steps, steps if test_steps is None else test_steps
        self.scope, self.adaptation, self.minibatch = scope, adaptation, minibatch
        self.normalisation: Normalisation = "running" if scope == "head" else normalisation
        self.head = Head(head, encoder.dim, ways, temperature)
        inner_lr = inner_lr if inner_lr is not None else 0.5 if head == "cosine" else 0.01
        self.ways = ways if head == "rows" else None
        self.rates = Rates(rates, [self._shapes()[i] for i in self._in_scope], steps, inner_lr)
        self.path: Path = "auto"
        if adaptation == "adam":
            own = self.head.shapes if head == "rows" else [(1, encoder.dim), (1,)]  # one row of state for all classes
            shapes = [*self._shapes()[:-2], *own]
            for position, i in enumerate(self._in_scope):
                self.register_buffer(f"second_{position}", torch.zeros(shapes[i]))
            self.register_buffer("adam_steps", torch.zeros(()))

    @property
    def called(self) -> str:
        return f"{self.chosen or self.kind}, {counted(self.test_steps, 'step')}"

    @property
    def kind(self) -> str:
        return "descent, cosine" if self.head.temperature else "descent"

    @property
    def settings(self) -> dict[str, Any]:
        names = ("scope", "steps", "test_steps", "normalisation", "adaptation", "minibatch")
        own = {name: getattr(self, name) for name in names}
        head, rates = self.head, self.rates
        own |= {"temperature": head.temperature} if head.temperature else {}
        return own | {"ways": head.ways, "head": head.kind, "inner_lr": rates.lr, "rates": rates.kind}

    @property
    def protocol(self) -> str:
        return "transductive" if self.normalisation == "transductive" else "inductive"

    @property
    def state_numbers(self) -> int:
        """The size of a task's state: all weights if the body is adapted, else 0."""
        return 0 if self.scope == "head" else sum(parameter.numel() for parameter in self.encoder.parameters())

    @property
    def adapted(self) -> tuple[int, ...]:
        """The positions, among the body's parameters and the head's weight and bias, of the tensors that change."""
        return tuple(self._in_scope[position] for position in self._moved)

    @property
    def _in_scope(self) -> tuple[int, ...]:
        """The positions of the tensors of the scope, frozen or not: each has a rate, and a state of Adam."""
        body = sum(1 for _ in self.encoder.body.parameters())
        return (*positions_in(self.encoder.body, self.scope), body, body + 1)

    @property
    def _moved(self) -> list[int]:
        """The positions, within the scope, of the tensors that the steps change."""
        body = list(self.encoder.body.parameters())
        return [position for position, i in enumerate(self._in_scope) if i >= len(body) or body[i].requires_grad]

    def merge_updates(self) -> None:
        """As for any learner, but not if inner steps change the updates."""
        if not rank_of(self.scope):
            super().merge_updates()

    def prepare(self, x: Num[Tensor, "b c h w"]) -> Shaped[Tensor, "b *row"]:
        """Returns features if only the head is adapted, and the images themselves if the body is adapted too."""
        return self.embed(x) if self.scope == "head" else x

    def adapt(
        self, support: Shaped[Tensor, "task support *row"], labels: Int[Tensor, "task support"], ways: int
    ) -> State:
        refuse_missing_classes(labels, ways)
        if self.scope == "head":
            start = self.head.start(ways, support, labels)
            weight, bias = descend_head(start, support, labels, self.rates.table(self._steps), self.head.temperature)
            if not self.training and not bool(weight.isfinite().all()):
                raise MetarepError(
                    f"the weights of the head are NaN or infinite after {self._steps} inner steps: the inner learning "
                    f"rate {self.rates.lr:g} is too large for these features; divide it by 10"
                )
            return {"weight": weight, "bias": bias}
        inner = InnerLoop(self._steps, self.adapted, order=1)
        adapted = adapt_tasks(
            self.start, inner, self.images(support), labels, ways, adam=self.adam, minibatch=self.minibatch
        )
        weights = zip(*(task.weights for task in adapted), strict=True)
        statistics = zip(*([part for pair in task.statistics for part in pair] for task in adapted), strict=True)
        stacked = {f"weight.{i}": torch.stack(tensors) for i, tensors in enumerate(weights)}
        return stacked | {f"statistic.{i}": torch.stack(tensors) for i, tensors in enumerate(statistics)}

    def logits(self, state: State, query: Shaped[Tensor, "task query *row"]) -> Float[Tensor, "task query ways"]:
        if self.scope == "head":
            query = functional.normalize(query, dim=-1) if self.head.temperature else query
            return torch.baddbmm(state["bias"].unsqueeze(1), query, state["weight"].mT)
        weights = [state[f"weight.{i}"] for i in range(_count(state, "weight"))]
        statistics = [state[f"statistic.{i}"] for i in range(_count(state, "statistic"))]
        adapted = [
            Adapted(
                [tensor[t] for tensor in weights],
                [(statistics[i][t], statistics[i + 1][t]) for i in range(0, len(statistics), 2)],
            )
            for t in range(len(query))
        ]
        return query_logits(self.start, adapted, self.images(query))

    def task_loss(
        self,
        support: Shaped[Tensor, "task support *row"],
        support_y: Int[Tensor, "task support"],
        query: Shaped[Tensor, "task query *row"],
        query_y: Int[Tensor, "task query"],
        ways: int,
        *,
        order: int = 2,
        weights: tuple[float, ...] | None = None,
    ) -> Float[Tensor, ""]:
        """Returns the mean query loss of the adapted weights, differentiable in the start by the fastest exact path.

        Args:
            support, support_y: prepared support rows and their classes.
            query, query_y: prepared query rows and their classes.
            ways: number of classes of each task.
            order: 2 differentiates through the steps; 1 uses the query gradient at the adapted weights.
            weights: the weight of the query loss after each step; None for the loss after the last step only.
        """
        if self.scope == "head":
            return super().task_loss(support, support_y, query, query_y, ways)
        if support_y.device.type == "cpu":  # elsewhere the check would be a host synchronisation in every step
            refuse_missing_classes(support_y, ways)
        inner = InnerLoop(self.steps, self.adapted, order, weights)
        tasks = Task(self.images(support), support_y, self.images(query), query_y)
        return meta_loss(self.start, inner, tasks, ways, self.path)

    def use(self, *, normalisation: Normalisation | None = None, test_steps: int | None = None) -> None:
        """Sets the normalisation or the number of test steps, for a measurement with other settings than in training.

        Raises:
            MetarepError: ``normalisation`` is given and only the head is adapted, or ``test_steps`` is too small.
        """
        if normalisation is not None and normalisation != self.normalisation:
            one_of("normalisation", normalisation, get_args(Normalisation))
            if self.scope == "head":
                what = f"normalisation {normalisation!r} is for learners that adapt the body"
                raise MetarepError(f"{what}; this one adapts the head, on features under running statistics")
            self.normalisation = normalisation
        if test_steps is not None:
            if test_steps < 0:
                raise MetarepError(f"test_steps must be at least 0, not {test_steps}")
            refuse_idle_steps(self.scope, self.head.kind, test_steps)
            self.test_steps = test_steps

    @contextmanager
    def using(self, normalisation: Normalisation | None = None, test_steps: int | None = None) -> Iterator[None]:
        """Sets the normalisation or the number of test steps within a ``with`` block; see :meth:`use`."""
        before = self.normalisation, self.test_steps
        try:
            self.use(normalisation=normalisation, test_steps=test_steps)
            yield
        finally:
            self.normalisation, self.test_steps = before

    @property
    def start(self) -> Start:
        """The encoder, head and rates that every task starts from."""
        return Start(self.encoder, self.head, self.rates, self.normalisation, tuple(self._moved))

    @property
    def adam(self) -> Adam | None:
        """The state of the inner optimiser; None for plain gradient descent."""
        if self.adaptation == "sgd":
            return None
        moments = [self.get_buffer(f"second_{position}") for position in self._moved]
        return Adam(self.rates.lr, moments, float(self.get_buffer("adam_steps")))

    @torch.no_grad()
    def carry_adam(self, states: Sequence[Adam]) -> None:
        """Sets the state that the next tasks start from: the mean of the states after these tasks, of all processes."""
        for position, mean in zip(self._moved, mean_moments(states), strict=True):
            buffer = self.get_buffer(f"second_{position}")
            buffer.copy_(mean if mean.shape == buffer.shape else mean.mean(0, keepdim=True))
        self.get_buffer("adam_steps").fill_(states[0].steps)

    @property
    def _steps(self) -> int:
        return self.steps if self.training else self.test_steps

    def images(self, x: Num[Tensor, "task n c h w"]) -> Float[Tensor, "task n c2 h2 w2"]:
        """Returns images of tasks, preprocessed for the body."""
        return self.encoder.preprocess(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def _shapes(self) -> list[tuple[int, ...]]:
        return [*(tuple(parameter.shape) for parameter in self.encoder.body.parameters()), *self.head.shapes]

    def undecayed(self) -> list[nn.Parameter]:
        """Returns the logarithms of the learned rates; weight decay would pull the rates towards 1."""
        return list(self.rates.parameters())


def _count(state: State, kind: str) -> int:
    return sum(name.startswith(f"{kind}.") for name in state)
