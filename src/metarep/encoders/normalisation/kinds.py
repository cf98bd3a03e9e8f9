"""Which layers of a network are normalisation layers."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

NORMS: tuple[type[nn.Module], ...] = (
    _BatchNorm,
    _InstanceNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    *([nn.RMSNorm] if hasattr(nn, "RMSNorm") else []),
)


def norm_parameters(body: nn.Module) -> set[int]:
    """The ``id`` of each scale and shift of the norm layers: torch's norms, their subclasses, and those of that name.

    Networks define their own norms (``T5LayerNorm``, ``GlobalResponseNorm``, ``FilterResponseNorm``). A layer counts as
    one if "norm" is in the name of its class, and then its parameters with one value a channel are scales and shifts. A
    matrix is never one.

    >>> body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4))
    >>> [name for name, parameter in body.named_parameters() if id(parameter) in norm_parameters(body)]
    ['1.weight', '1.bias']
    """
    parameters = set()
    for layer in body.modules():
        known, named = isinstance(layer, NORMS), "norm" in type(layer).__name__.lower()
        for parameter in layer.parameters(recurse=False):
            if known or (named and sum(side > 1 for side in parameter.shape) <= 1):
                parameters.add(id(parameter))
    return parameters
