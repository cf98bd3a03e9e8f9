"""Replica: a copy of a network that shares its parameters, with norms that can be told whose statistics to use."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from metarep.errors import MetarepError
from metarep.network_copies import copied, patched, unwrapped
from metarep.normalisation.explicit import ExplicitNorm
from metarep.normalisation.forward import ToldForward
from metarep.normalisation.plain import PlainNorm
from metarep.normalisation.statistics import batch_norms
from metarep.normalisation.told import Told

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_CHECKPOINTING = ("grad_checkpointing", "gradient_checkpointing")  # timm's and transformers' names for it


class Replica:
    """A copy of ``body`` that shares its parameters, with explicit batch normalisation, and with plain layer and
    instance normalisation where it is to be differentiated twice.

    Only torch's own layers, to which nothing was added, are replaced. A batch norm that is more (a subclass, or one
    with a hook or a patched forward) goes on running as it is, and its call of ``batch_norm`` is told. Wherever a layer
    is met, under two names or in two parents, it is the same layer in the copy. What compiles or spreads a network
    (``torch.compile``, ``DataParallel``) is taken off. One thread needs one replica: whose statistics to use, and which
    weights, are set on the copy and never on ``body``.

    Args:
        body: any network.
        differentiable: twice.

    ``twin`` is the copy, ``names`` what it calls the parameters of ``body``, in their order, and ``norms`` are told
    what its batch norms are to use.

    Raises:
        MetarepError: a layer keeps statistics that nobody can tell whose they are; or the body cannot be copied.
    """

    def __init__(self, body: nn.Module, *, differentiable: bool) -> None:
        refuse_kept_statistics(body)
        instead = {
            id(layer): other
            for path, layer in body.named_modules()
            if (other := _instead(path, layer, differentiable)) is not layer
        }
        self.twin, self.copies = copied(body, instead)
        for layer in self.twin.modules():  # what is computed again in a backward pass would be so under other weights
            layer.__dict__.update({name: False for name in _CHECKPOINTING if vars(layer).get(name) is True})
        own = {id(parameter): name for name, parameter in self.twin.named_parameters()}
        self.names = [own[id(parameter)] for parameter in body.parameters()]
        paths = {id(layer): path for path, layer in body.named_modules()}
        self.norms = [self._told(layer, paths[id(layer)], differentiable) for layer in batch_norms(body)]
        self.constants = list(self._constants(body, instead))

    def refuse_changed_buffers(self) -> None:
        """Raise if a pass has changed a buffer: nobody can know whose state it is in a task, or whose is to be kept.

        Raises:
            MetarepError: it names layer and buffer.
        """
        for path, layer, name, there, kept, version in self.constants:
            now = there._buffers.get(name)
            if now is kept and kept._version == version and (kept.is_cuda or _equal(kept, layer._buffers[name])):
                continue
            where = f"{type(layer).__name__} at {path!r}" if path else type(layer).__name__
            raise MetarepError(
                f"{where} changes its buffer {name!r} in every pass, and that is no statistic of batch normalisation; "
                "gradient descent on a task cannot know whose it would be. Put a layer there that keeps no state "
                "(GroupNorm, LayerNorm), or take a method that does not adapt the body (protonet, anil)"
            )

    def _told(self, layer: _BatchNorm, path: str, differentiable: bool) -> Told:
        there = self.copies[id(layer)]
        if isinstance(there, ExplicitNorm):
            return there.told
        there._buffers["num_batches_tracked"] = None  # or a pass would count in it
        forward = ToldForward(there, there.forward, differentiable=differentiable, path=path)
        there.forward = forward
        return forward.told

    def _constants(self, body: nn.Module, instead: dict[int, nn.Module]) -> Any:  # noqa: ANN401
        for path, layer in body.named_modules():
            there = self.copies.get(id(layer))
            if id(layer) in instead or there is None or unwrapped(layer) is not layer:
                continue
            for name, kept in there._buffers.items():
                if kept is not None:
                    yield path, layer, name, there, kept, kept._version


def replica(body: nn.Module, *, differentiable: bool) -> nn.Module:
    """The copy alone; see :class:`Replica`."""
    return Replica(body, differentiable=differentiable).twin


def refuse_kept_statistics(body: nn.Module) -> None:
    """Raise if an instance norm keeps running statistics: they are of other images than a task's.

    Raises:
        MetarepError: it names the layer.
    """
    for path, layer in body.named_modules():
        if isinstance(layer, _InstanceNorm) and layer.running_mean is not None:
            raise MetarepError(
                f"the norm layer {path!r} is a {type(layer).__name__} that keeps running statistics, and gradient "
                "descent on a task cannot tell it whose to use; make it with track_running_stats=False, or take a "
                "method that does not adapt the body (protonet, anil)"
            )


def _instead(path: str, layer: nn.Module, differentiable: bool) -> nn.Module:
    """What stands for a layer: itself, unless it is a norm of torch's and nothing else."""
    if isinstance(layer, _BatchNorm):
        return ExplicitNorm(layer, differentiable=differentiable, path=path) if _bare(layer, _BATCH_NORMS) else layer
    if differentiable and _bare(layer, (nn.LayerNorm, *_INSTANCE_NORMS)):
        assert isinstance(layer, nn.LayerNorm | _InstanceNorm)
        return PlainNorm(layer)
    return layer


def _bare(layer: nn.Module, kinds: Sequence[type[nn.Module]]) -> bool:
    """Whether it is of just these kinds and nobody has added anything to it."""
    added = layer._modules or patched(layer) or layer._parameters.keys() - {"weight", "bias"}
    return type(layer) in kinds and not added


def _equal(one: Tensor, other: Tensor | None) -> bool:
    """Also where both are no number."""
    if other is None or torch.equal(one, other):
        return other is not None
    return one.is_floating_point() and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
