"""Projector: a small network between the features and a contrastive loss, used in training only."""

from torch import nn

from metarep.errors import MetarepError


class Projector(nn.Sequential):
    """The projection head: a linear layer, or linear, batch norm, ReLU, linear.

    Trap: evaluate the features and never the projections. The loss removes from the projections what two views of an
    image do not share.

    Args:
        inputs: length of a feature vector.
        outputs: length of a projection.
        hidden: units of the hidden layer; 0 for a single linear layer.
        norm: put batch normalisation before the ReLU. The layer before it then has no bias, which would cancel out.
        bias: give the last layer a bias. Leave it out if a norm follows, which would cancel it.

    Raises:
        MetarepError: ``outputs`` is below 1 or ``hidden`` below 0.

    >>> [type(layer).__name__ for layer in Projector(64, 128, hidden=512)]
    ['Linear', 'BatchNorm1d', 'ReLU', 'Linear']
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
