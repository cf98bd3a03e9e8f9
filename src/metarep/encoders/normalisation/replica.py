"""Replica: a copy of a network that shares its parameters, and whose batch norms use explicitly chosen statistics."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from metarep.encoders.network_copies import copied, patched, unwrapped
from metarep.encoders.normalisation.explicit import ExplicitNorm
from metarep.encoders.normalisation.forward import ExplicitForward
from metarep.encoders.normalisation.pass_statistics import PassStatistics
from metarep.encoders.normalisation.plain import PlainHardsigmoid, PlainNorm
from metarep.encoders.normalisation.statistics import batch_norms
from metarep.errors import MetarepError

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_CHECKPOINTING = ("grad_checkpointing", "gradient_checkpointing")  # timm's and transformers' names for it


class Replica:
    """A copy of a network that shares its parameters, and whose batch norms use explicitly chosen statistics.

    Batch norms become :class:`ExplicitNorm`. If the copy is differentiated twice, layer and instance norms become
    :class:`PlainNorm`, and hard sigmoids :class:`PlainHardsigmoid`. Only unchanged layers of torch are replaced: a
    subclass, or a layer with a hook or a patched forward, runs as before, and only its call of ``batch_norm`` is
    replaced. A layer that occurs twice in the network is one layer in the copy, too. ``torch.compile`` and
    ``DataParallel`` wrappers are removed. Each thread needs its own replica, because statistics and weights are set on
    the copy and never on ``body``.

    Args:
        body: any network.
        differentiable: whether the copy is differentiated twice.

    Attributes:
        twin: the copy.
        names: names of the parameters in the copy, in the order of ``body.parameters()``.
        norms: the statistics of each batch norm, which say what it uses and record what it has used.

    Raises:
        MetarepError: a layer keeps statistics that cannot be chosen, or the body cannot be copied.
    """

    def __init__(self, body: nn.Module, *, differentiable: bool) -> None:
        refuse_kept_statistics(body)
        instead = {
            id(layer): other
            for path, layer in body.named_modules()
            if (other := _instead(path, layer, differentiable)) is not layer
        }
        self.twin, self.copies = copied(body, instead)
        for layer in self.twin.modules():  # the repeated forward pass would use other weights
            layer.__dict__.update({name: False for name in _CHECKPOINTING if vars(layer).get(name) is True})
        own = {id(parameter): name for name, parameter in self.twin.named_parameters()}
        self.names = [own[id(parameter)] for parameter in body.parameters()]
        paths = {id(layer): path for path, layer in body.named_modules()}
        self.norms = [self._statistics(layer, paths[id(layer)], differentiable) for layer in batch_norms(body)]
        self.constants = list(self._constants(body, instead))

    def refuse_changed_buffers(self) -> None:
        """Raise if a pass has changed a buffer; after several tasks, no task's value would be the right one to keep.

        Raises:
            MetarepError: a buffer has changed. The message names the layer and the buffer.
        """
        for path, layer, name, duplicate, kept, version in self.constants:
            now = duplicate._buffers.get(name)
            if now is kept and kept._version == version and (kept.is_cuda or _equal(kept, layer._buffers[name])):
                continue
            where = f"{type(layer).__name__} at {path!r}" if path else type(layer).__name__
            raise MetarepError(
                f"{where} changes its buffer {name!r} in every pass, and the buffer is not a batch norm statistic; "
                "gradient descent on several tasks would mix their values. Put a layer there that keeps no state "
                "(GroupNorm, LayerNorm), or take a method that does not adapt the body (protonet, anil)"
            )

    def _statistics(self, layer: _BatchNorm, path: str, differentiable: bool) -> PassStatistics:
        """The statistics of a batch norm's copy, which is first made explicit if it was not replaced."""
        duplicate = self.copies[id(layer)]
        if isinstance(duplicate, ExplicitNorm):
            return duplicate.statistics
        duplicate._buffers["num_batches_tracked"] = None  # otherwise each pass would increase it
        forward = ExplicitForward(duplicate, duplicate.forward, differentiable=differentiable, path=path)
        duplicate.forward = forward
        return forward.statistics

    def _constants(self, body: nn.Module, instead: dict[int, nn.Module]) -> Any:  # noqa: ANN401
        """The buffers that a pass must not change: path, layer, name, the layer's copy, buffer and its version."""
        for path, layer in body.named_modules():
            duplicate = self.copies.get(id(layer))
            if id(layer) in instead or duplicate is None or unwrapped(layer) is not layer:
                continue
            for name, kept in duplicate._buffers.items():
                if kept is not None:
                    yield path, layer, name, duplicate, kept, kept._version


def replica(body: nn.Module, *, differentiable: bool) -> nn.Module:
    """A copy of a network that shares its parameters; the ``twin`` of a :class:`Replica`.

    >>> body = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    >>> duplicate = replica(body, differentiable=True)
    >>> duplicate[0].weight is body[0].weight, type(duplicate[1]).__name__
    (True, 'ExplicitNorm')
    """
    return Replica(body, differentiable=differentiable).twin


def refuse_kept_statistics(body: nn.Module) -> None:
    """Raise if an instance norm keeps running statistics, which are not those of the task's images.

    Raises:
        MetarepError: a layer does. The message names it.
    """
    for path, layer in body.named_modules():
        if isinstance(layer, _InstanceNorm) and layer.running_mean is not None:
            raise MetarepError(
                f"the norm layer {path!r} is a {type(layer).__name__} that keeps running statistics, and gradient "
                "descent on a task cannot set the statistics that it uses; make it with track_running_stats=False, or "
                "take a method that does not adapt the body (protonet, anil)"
            )


def _instead(path: str, layer: nn.Module, differentiable: bool) -> nn.Module:
    """The replacement of a layer; the layer itself unless it is an unchanged norm or hard sigmoid of torch."""
    if isinstance(layer, _BatchNorm):
        return ExplicitNorm(layer, differentiable=differentiable, path=path) if _bare(layer, _BATCH_NORMS) else layer
    if differentiable and _bare(layer, (nn.LayerNorm, *_INSTANCE_NORMS)):
        assert isinstance(layer, nn.LayerNorm | _InstanceNorm)
        return PlainNorm(layer)
    return PlainHardsigmoid() if differentiable and _bare(layer, (nn.Hardsigmoid,)) else layer


def _bare(layer: nn.Module, kinds: Sequence[type[nn.Module]]) -> bool:
    """Whether a layer is of exactly one of these types, without hooks, a patched forward or additional parameters."""
    added = layer._modules or patched(layer) or layer._parameters.keys() - {"weight", "bias"}
    return type(layer) in kinds and not added


def _equal(one: Tensor, other: Tensor | None) -> bool:
    """Whether two tensors are equal; NaN equals NaN."""
    if other is None or torch.equal(one, other):
        return other is not None
    return one.is_floating_point() and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
