"""StackedNetwork: Conv4 and a linear head as a function of the weights of many tasks at once, for NVIDIA GPUs."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from metarep.encoders.normalisation import Statistics, batch_norms, running_statistics
from metarep.errors import MetarepError
from metarep.fast.block import signs, turned
from metarep.fast.conv4_block import as_made
from metarep.fast.convolution import conv
from metarep.fast.stacked_tail import Moments, fused_tail, plain_tail
from metarep.fast.support_formula import of_many_tasks
from metarep.learners.inner_loop.head import Classifier, Head
from metarep.learners.inner_loop.start import Start
from metarep.learners.inner_loop.support_gradient import Weights
from metarep.learners.inner_loop.task_network import TaskNetwork

PORTION = 1 << 30  # largest size of one feature map, in bytes


class StackedNetwork(TaskNetwork):
    """Conv4 under the weights of many tasks: every tensor has a task axis, and a loss is a sum over it.

    Args:
        start: gives the encoder, which is a Conv4, and says which statistics its norm layers use.
        differentiable: compute in the dtype of the weights, twice differentiable. Otherwise compute in the encoder's
            precision, for first derivatives.
        precise: compute in the dtype of the weights all the same.
        rough: float32 convolutions may round their inputs to ten bits, as the device does by default.
        checked: raise at once if a loss is NaN or infinite. On a GPU this needs a host synchronisation.

    Raises:
        MetarepError: the encoder is not an unchanged Conv4.
    """

    looked_through = True  # all operations of Conv4 are known to be twice differentiable

    def __init__(
        self,
        start: Start,
        *,
        differentiable: bool,
        precise: bool = False,
        rough: bool = False,
        checked: bool = True,
    ) -> None:
        encoder, self.normalisation = start.encoder, start.normalisation
        if not as_made(encoder.body):
            raise MetarepError(
                f"path 'stacked' needs an unchanged Conv4 without hooks, and this {type(encoder.body).__name__} is not "
                "one; take path auto or mapped"
            )
        self.checked, self.rough = checked, rough
        norm = batch_norms(encoder.body)[0]
        self.eps, self.width = norm.eps, norm.num_features
        self.running = running_statistics(encoder.body) if self.normalisation == "running" else None
        # Derivatives also have the dtype of the weights: on a GPU, bfloat16 is slow for few images.
        self.formula = partial(of_many_tasks, eps=self.eps) if self.running is None else None
        self.mixed = encoder.precision == "bfloat16" and not (differentiable or precise)
        self.tail = plain_tail if differentiable else fused_tail
        self.recorded: Statistics = []

    def portions(self, x: Float[Tensor, "task n c h w"], *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Yields a few tasks at a time, so that the largest feature map (the first block's) stays within a gigabyte."""
        each = max(1, PORTION // (x[0, :, 0].numel() * self.width * (2 if self.mixed else 4)))
        return zip(*(part.split(each) for part in (x, *others)), strict=True)

    def leaves(self, weights: Weights) -> list[Tensor]:
        """Returns copies of the weights as leaves of a new graph."""
        return [weight.detach().clone(memory_format=torch.contiguous_format).requires_grad_() for weight in weights]

    def classifier(
        self, head: Head, ways: int, features: Float[Tensor, "task n dim"] | None, labels: Int[Tensor, "task n"]
    ) -> Classifier:
        """Returns the weight and bias that the head of each task starts from."""
        return head.start(ways, features, labels)

    def loss(self, logits: Float[Tensor, "task n ways"], labels: Int[Tensor, "task n"]) -> Float[Tensor, ""]:
        """Returns the sum over tasks of the mean cross-entropy."""
        return cross_entropy(logits.flatten(0, 1), labels.flatten()) * len(labels)

    def support_logits(
        self, weights: Weights, x: Float[Tensor, "task n c h w"], *, record: bool = False
    ) -> Float[Tensor, "task n ways"]:
        """Returns the logits of the support images under their own batch statistics (or the running ones)."""
        return self._logits(weights, x, record=record)

    def query_logits(
        self,
        weights: Weights,
        query: Float[Tensor, "task query c h w"],
        support: Float[Tensor, "task support c h w"] | None = None,
        statistics: Statistics | None = None,
    ) -> Float[Tensor, "task query ways"]:
        """Returns the logits of the queries, as :meth:`TaskNetwork.query_logits`."""
        if self.normalisation in ("running", "transductive"):
            return self._logits(weights, query)
        if statistics is not None:
            return self._logits(weights, query, _all_wide(statistics))
        assert support is not None
        rows = support.shape[1]
        return self._logits(weights, torch.cat([support, query], 1), rows=rows)[:, rows:]

    def features(
        self,
        body: Weights,
        x: Float[Tensor, "task n c h w"],
        given: Sequence[Moments] | None = None,
        *,
        rows: int | None = None,
        record: bool = False,
    ) -> Float[Tensor, "task n dim"]:
        """Returns the features of ``x``.

        The norm layers use the batch statistics of ``x`` or of its first ``rows`` images, or the running statistics,
        or the ones ``given``.
        """
        tasks, given = len(x), given or self._kept(len(x))
        rows = x.shape[1] if rows is None else rows
        z, seen = x.transpose(0, 1).flatten(1, 2), []
        for i, (w, scale, shift) in enumerate(zip(body[::3], body[1::3], body[2::3], strict=True)):
            sign = signs(scale.flatten())
            w = turned(w.flatten(0, 1), sign)
            if self.mixed:
                z, w = z.bfloat16(), w.bfloat16()
            moments = Moments(turned(given[i].mean, sign), given[i].variance) if given else None
            y = conv(z, w, tasks, rough=self.rough)
            z, used = self.tail(y, turned(_wide(scale), sign), _wide(shift), self.eps, rows, moments)
            seen.append((turned(used.mean.detach(), sign).view_as(scale), used.variance.detach().view_as(scale)))
        if record and not given:
            self.recorded = seen
        features = z.unflatten(1, (tasks, -1)).transpose(0, 1).flatten(2)
        return features.float() if self.mixed else features

    def seen(self) -> Statistics:
        """Returns the batch statistics of the last pass that recorded them, with the task axis."""
        return self.recorded

    def _logits(
        self,
        weights: Weights,
        x: Tensor,
        given: Sequence[Moments] | None = None,
        *,
        rows: int | None = None,
        record: bool = False,
    ) -> Tensor:
        features = self.features(weights[:-2], x, given, rows=rows, record=record)
        return torch.baddbmm(weights[-1].unsqueeze(1), features, weights[-2].mT)

    def _kept(self, tasks: int) -> list[Moments] | None:
        if self.running is None:
            return None
        return _all_wide([(mean.expand(tasks, -1), variance.expand(tasks, -1)) for mean, variance in self.running])


def _all_wide(statistics: Statistics) -> list[Moments]:
    return [Moments(_wide(mean), _wide(variance)) for mean, variance in statistics]


def _wide(tensor: Float[Tensor, "task c"]) -> Float[Tensor, "task*c 1 1"]:
    """Returns the tensor in a shape that broadcasts to a map."""
    return tensor.reshape(-1, 1, 1)
