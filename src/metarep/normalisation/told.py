"""Told: what a norm layer of a replica is told for a pass, and what it saw in it."""

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from metarep.errors import MetarepError

Moments = tuple[Tensor, Tensor]  # mean and (biased) variance of each channel, with an axis of calls first if several


class OtherRowsError(Exception):
    """A norm layer was given other rows than one an image, so the support's are not the first of them."""


class Told:
    """What one norm layer is told for a pass through the network, and what it saw in it.

    A layer that runs several times in a pass has statistics of its own each time, so ``given`` and ``seen`` may have an
    axis of calls; without one, ``given`` serves all calls.

    Args:
        path: of the layer, for errors.
        like: of the statistics' length, kind and device.
    """

    def __init__(self, path: str, like: Tensor) -> None:
        self.path, self.like, self.kept = path, like, list[Moments]()
        self.begin()

    def begin(
        self,
        given: Moments | None = None,
        *,
        rows: int | None = None,
        images: int = 0,
        recording: bool = False,
        linked: bool = False,
    ) -> None:
        """Before each pass.

        Args:
            given: use these statistics.
            rows: take them of so many leading images; None for all.
            images: that the pass is about.
            recording: keep what was used.
            linked: with its graph: gradients pass through what is kept, and through what is given.
        """
        self.given, self.rows, self.images, self.recording, self.linked = given, rows, images, recording, linked
        self.calls = 0
        if recording:
            self.kept = list[Moments]()

    def take(self, x: Tensor) -> tuple[Moments | None, int | None]:
        """What this call is to use: given statistics, or the first so many rows of ``x`` (None: all).

        Raises:
            OtherRowsError: nobody can know which rows of ``x`` are the support's.
            MetarepError: more calls than there are given statistics.
        """
        self.calls += 1
        if self.given is not None:
            mean, variance = self.given
            if mean.ndim == 1:
                return self.given, None
            if self.calls > len(mean):
                raise MetarepError(
                    f"the norm layer {self.path!r} runs {self.calls} times for the queries, and ran {len(mean)} times "
                    "for the support, so there are no statistics for it; call it equally often, or take "
                    "normalisation=running"
                )
            return (mean[self.calls - 1], variance[self.calls - 1]), None
        if self.rows is not None and len(x) != self.images:
            raise OtherRowsError
        return None, self.rows

    def keep(self, mean: Tensor, variance: Tensor) -> None:
        """What was used, if that is asked for."""
        if self.recording:
            self.kept.append((mean, variance) if self.linked else (mean.detach(), variance.detach()))

    @property
    def seen(self) -> Moments:
        """What was used in the last recorded pass: of one call, or of several (or none) with their axis first."""
        if len(self.kept) == 1:
            return self.kept[0]
        if not self.kept:
            return self.like.new_zeros(0, len(self.like)), self.like.new_zeros(0, len(self.like))
        means, variances = zip(*self.kept, strict=True)
        return torch.stack(means), torch.stack(variances)


def like(layer: _BatchNorm) -> Tensor:
    """A tensor of the statistics' length, kind and device."""
    for tensor in (layer.running_mean, layer.weight):
        if tensor is not None:
            return tensor.detach()
    return torch.zeros(layer.num_features)
