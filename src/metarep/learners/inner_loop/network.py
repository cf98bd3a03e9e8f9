"""Network: an encoder and a linear head as a function of weights that are given from outside."""

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
from metarep.learners.inner_loop.slope import Weights
from metarep.learners.inner_loop.start import Start
from metarep.learners.inner_loop.task_network import TaskNetwork
from metarep.machine import faster


class Network(TaskNetwork):
    """The encoder's body under other weights, for one thread.

    Args:
        start: its encoder gives the body and its precision, and its normalisation says whose statistics.
        differentiable: in float32 (or float64), contiguous and from operations that can be differentiated twice;
            otherwise in the encoder's precision, channels-last and fused, for first derivatives.
        precise: in float32 all the same: where steps build on each other, and would build on what bfloat16 takes from
            them, or where logits are large, as those of heads that start from prototypes.
        mapped: to be run under ``torch.func``.
    """

    def __init__(self, start: Start, *, differentiable: bool, precise: bool = False, mapped: bool = False) -> None:
        encoder = start.encoder
        self.body, self.differentiable, self.mapped = encoder.body, differentiable, mapped
        self.kind = encoder.kind
        self.formula = faster.support_formula(start) if differentiable and not mapped else None
        self.apart = False  # whether the queries pass after the support, for a norm layer sees other rows than images
        self.normalisation = start.normalisation
        self.running = running_statistics(encoder.body) if start.normalisation == "running" else None
        self.layout = torch.contiguous_format if differentiable else torch.channels_last
        self.mixed = encoder.precision == "bfloat16" and not (differentiable or precise)
        if self.formula is None:
            _ = self.replica

    @cached_property
    def replica(self) -> Replica:
        """The copy that runs. With a formula it is made when it is needed, for then it seldom is."""
        return Replica(self.body, differentiable=self.differentiable)

    def leaves(self, weights: Weights) -> list[Tensor]:
        """The weights as leaves of a new graph, in this network's memory format.

        Trap: an image of one channel has no format to tell, and neither has a weight of one input channel unless it is
        copied into it; without, the whole pass falls back to the slow format.
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
        """Weight and bias where the head of a task starts."""
        weight, bias = head.start(ways, None if features is None else features.unsqueeze(0), labels.unsqueeze(0))
        return weight[0], bias[0]

    def loss(self, logits: Float[Tensor, "n ways"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        """The mean cross-entropy."""
        return functional.cross_entropy(logits, labels)

    def support_logits(
        self, weights: Weights, x: Float[Tensor, "support c h w"], *, record: bool = False
    ) -> Float[Tensor, "support ways"]:
        """Scores of the support images, under their own statistics."""
        return self._logits(weights, x, given=self.running, record=record)

    def query_logits(
        self,
        weights: Weights,
        query: Float[Tensor, "query c h w"],
        support: Float[Tensor, "support c h w"] | None = None,
        statistics: Statistics | None = None,
    ) -> Float[Tensor, "query ways"]:
        """Scores of the queries: under the support's statistics (taken of ``support``, or given), or their own."""
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
        """Features under the statistics of ``x`` itself (or the running ones)."""
        return self._features(body, x, given=self.running)

    def seen(self) -> Statistics:
        """The statistics of the last pass that was asked to record."""
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
            raise MetarepError(f"the body changes a tensor that it keeps, which is not of one task: {error}") from error
        self.replica.refuse_changed_buffers()
        return features.float() if self.mixed else features
