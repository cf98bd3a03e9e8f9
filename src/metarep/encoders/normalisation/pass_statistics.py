"""PassStatistics: the batch statistics that a norm layer of a replica uses and records in one pass."""

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from metarep.errors import MetarepError

# Mean and (biased) variance of each channel; with several calls of the layer, the axis of calls comes first.
Moments = tuple[Tensor, Tensor]


class OtherRowsError(Exception):
    """A norm layer got a number of rows that is not the number of images, so the support's rows are unknown."""


class PassStatistics:
    """The batch statistics that one norm layer is to use in a pass through the network, and those it has used.

    A layer that runs several times in a pass has different statistics each time, so ``given`` and ``seen`` may have an
    axis of calls. Without this axis, ``given`` is used in every call.

    Args:
        path: path of the layer in the network, for messages.
        like: a tensor of the statistics' length, dtype and device.
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
        """Set what the layer uses in the next pass.

        Args:
            given: statistics to use; None to compute them from the batch.
            rows: number of leading images that they are computed from; None for all.
            images: number of images in the pass.
            recording: keep the statistics that were used.
            linked: keep them with their autograd graph, so that gradients pass through those kept and those given.
        """
        self.given, self.rows, self.images, self.recording, self.linked = given, rows, images, recording, linked
        self.calls = 0
        if recording:
            self.kept = list[Moments]()

    def take(self, x: Tensor) -> tuple[Moments | None, int | None]:
        """What this call of the layer uses: given statistics, or the leading rows of ``x`` to compute them from.

        Returns:
            The given statistics and None; or None and the number of leading rows (None: all).

        Raises:
            OtherRowsError: the rows of ``x`` are not the images, so it is unknown which ones are the support's.
            MetarepError: the layer runs more often than there are given statistics.
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
        """Keep the statistics that a call has used, if this pass is recorded."""
        if self.recording:
            self.kept.append((mean, variance) if self.linked else (mean.detach(), variance.detach()))

    @property
    def seen(self) -> Moments:
        """The statistics of the last recorded pass; unless there was exactly one call, with an axis of calls first."""
        if len(self.kept) == 1:
            return self.kept[0]
        if not self.kept:
            return self.like.new_zeros(0, len(self.like)), self.like.new_zeros(0, len(self.like))
        means, variances = zip(*self.kept, strict=True)
        return torch.stack(means), torch.stack(variances)


def like(layer: _BatchNorm) -> Tensor:
    """A tensor of the length, dtype and device of a layer's statistics."""
    for tensor in (layer.running_mean, layer.weight):
        if tensor is not None:
            return tensor.detach()
    return torch.zeros(layer.num_features)
