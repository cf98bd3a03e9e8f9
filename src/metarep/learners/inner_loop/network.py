"""Network: an encoder and a linear head as a function of their weights."""

from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from metarep.encoders.normalisation import InPlainArithmetic, OtherRowsError, Replica, Statistics, running_statistics
from metarep.errors import MetarepError
from metarep.learners.inner_loop.head import Head
from metarep.learners.inner_loop.start import Start
from metarep.learners.inner_loop.support_gradient import SupportFormula, Weights
from metarep.learners.inner_loop.task_network import TaskNetwork
from metarep.machine import faster


class Network(TaskNetwork):
    """A copy of the encoder's body that runs one task under any weights, on one thread.

    Args:
        start: gives the body and its precision, and says which statistics the norm layers use.
        differentiable: compute in float32 (or float64), contiguous, and with operations that can be differentiated
            twice. Otherwise compute in the encoder's precision, channels-last and fused, for first derivatives.
        precise: compute in float32 all the same. The errors of bfloat16 would add up over the inner steps, and they are
            too large where logits are large, as for heads that start from prototypes.
        mapped: run under ``torch.func``.
    """

    def __init__(self, start: Start, *, differentiable: bool, precise: bool = False, mapped: bool = False) -> None:
        encoder = start.encoder
        self.body, self.differentiable, self.mapped = encoder.body, differentiable, mapped
        self.kind = encoder.kind
        self.formula: SupportFormula | None = faster.support_formula(start) if differentiable and not mapped else None
        self.apart = False  # whether queries pass after the support: a norm layer gets rows that are not images
        self.normalisation = start.normalisation
        self.running = running_statistics(encoder.body) if start.normalisation == "running" else None
        self.layout = torch.contiguous_format if differentiable else encoder.layout
        self.mixed = encoder.precision == "bfloat16" and not (differentiable or precise)
        if self.formula is None:
            _ = self.replica

    @cached_property
    def replica(self) -> Replica:
        """The copy that runs. With a formula it is made at first use, because few passes need it."""
        return Replica(self.body, differentiable=self.differentiable)

    def leaves(self, weights: Weights) -> list[Tensor]:
        """Returns copies of the weights as leaves of a new graph, in this network's memory format.

        Trap: an image of one channel does not determine a memory format, and neither does a weight of one input
        channel unless it is copied into that format. Without the copy, the whole pass uses the slow format.
        """
        return [
            weight.detach()
            .clone(memory_format=self.layout if weight.ndim == 4 else torch.contiguous_format)
            .requires_grad_()
            for weight in weights
        ]

    def classifier(
        self, head: Head, ways: int, features: Float[Tensor, "n dim"] | None, labels: Int[Tensor, " n"]
    ) -> tuple[Tensor, Tensor]:
        """Returns the weight and bias that the head of a task starts from."""
        weight, bias = head.start(ways, None if features is None else features.unsqueeze(0), labels.unsqueeze(0))
        return weight[0], bias[0]

    def loss(self, logits: Float[Tensor, "n ways"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        """Returns the mean cross-entropy."""
        return functional.cross_entropy(logits, labels)

    def support_logits(
        self, weights: Weights, x: Float[Tensor, "support c h w"], *, record: bool = False
    ) -> Float[Tensor, "support ways"]:
        """Returns the logits of the support images under their own batch statistics (or the running ones)."""
        return self._logits(weights, x, given=self.running, record=record)

    def query_logits(
        self,
        weights: Weights,
        query: Float[Tensor, "query c h w"],
        support: Float[Tensor, "support c h w"] | None = None,
        statistics: Statistics | None = None,
    ) -> Float[Tensor, "query ways"]:
        """Returns the logits of the queries, as :meth:`TaskNetwork.query_logits`."""
        if self.normalisation == "running":
            return self._logits(weights, query, given=self.running)
        if self.normalisation == "transductive":
            return self._logits(weights, query)
        if statistics is not None:
            return self._logits(weights, query, given=statistics)
        assert support is not None
        if not self.apart:
            try:
                return self._logits(weights, torch.cat([support, query]), rows=len(support))[len(support) :]
            except OtherRowsError:
                self.apart = True
        self._logits(weights, support, record=True, linked=True)
        return self._logits(weights, query, given=self.seen(), linked=True)

    def features(self, body: Weights, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b dim"]:
        """Returns the features of ``x`` under its own batch statistics (or the running ones)."""
        return self._features(body, x, given=self.running)

    def seen(self) -> Statistics:
        """Returns the batch statistics of the last pass that recorded them; empty under running statistics."""
        return [] if self.running is not None else [norm.seen for norm in self.replica.norms]

    def _mode(self) -> AbstractContextManager[object]:
        return InPlainArithmetic() if self.mapped else nullcontext()

    def _logits(self, weights: Weights, x: Tensor, **statistics: object) -> Tensor:
        features = self._features(weights[:-2], x, **statistics)  # pyright: ignore[reportArgumentType]
        return functional.linear(features.to(weights[-2].dtype), weights[-2], weights[-1])

    def _features(
        self,
        body: Weights,
        x: Tensor,
        *,
        rows: int | None = None,
        given: Statistics | None = None,
        record: bool = False,
        linked: bool = False,
    ) -> Tensor:
        for i, norm in enumerate(self.replica.norms):
            own = given[i] if given is not None else None
            norm.begin(own, rows=rows, images=len(x), recording=record, linked=linked)
        x = x.to(self.kind or x.dtype).contiguous(memory_format=self.layout)
        weights = dict(zip(self.replica.names, body, strict=True))
        try:
            with torch.autocast(x.device.type, torch.bfloat16, enabled=self.mixed), self._mode():
                features = functional_call(self.replica.twin, weights, (x,))
        except RuntimeError as error:
            if "mutate a captured Tensor" not in str(error):
                raise
            raise MetarepError(
                "the body changes a tensor that it keeps, and all tasks share that tensor; compute the value anew in "
                f"every call of forward (torch says: {error})"
            ) from error
        self.replica.refuse_changed_buffers()
        return features.float() if self.mixed else features
