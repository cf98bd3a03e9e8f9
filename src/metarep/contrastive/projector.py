"""Projector: a small network between the representation and a loss; nothing of it is deployed."""

from torch import nn

from metarep.errors import MetarepError


class Projector(nn.Sequential):
    """From features to the space in which a loss compares views: linear, or linear, batch norm, ReLU, linear.

    Trap: evaluate the features, never the projections; the loss makes these forget what views do not share.

    Args:
        inputs: length of a feature.
        outputs: length of a projection.
        hidden: units between; 0 for a single linear layer.
        norm: batch normalisation before the ReLU. The layer before it then has no bias, which would be cancelled.
        bias: of the last layer; leave it out where a norm follows that would cancel it.

    >>> import torch
    >>> Projector(64, 128, hidden=512)(torch.zeros(2, 64)).shape
    torch.Size([2, 128])
    """

    def __init__(self, inputs: int, outputs: int, *, hidden: int, norm: bool = True, bias: bool = True) -> None:
        for name, size, least in (("outputs", outputs, 1), ("hidden", hidden, 0)):
            if size < least:
                raise MetarepError(f"{name} must be at least {least}, not {size}")
        layers: list[nn.Module] = []
        if hidden:
            layers.append(nn.Linear(inputs, hidden, bias=not norm))
            layers += [nn.BatchNorm1d(hidden)] if norm else []
            layers.append(nn.ReLU())
        super().__init__(*layers, nn.Linear(hidden or inputs, outputs, bias=bias))
