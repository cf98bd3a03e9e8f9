"""Which layers are norms."""

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
    """The ``id`` of each scale and shift of a norm layer: of torch's norms, their subclasses, and what is called one.

    Networks bring norms of their own (``T5LayerNorm``, ``GlobalResponseNorm``, ``FilterResponseNorm``); such a layer
    has "norm" in its name, and learns a number for each channel. A matrix is no scale, whatever it is called.

    >>> body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4))
    >>> [name for name, parameter in body.named_parameters() if id(parameter) in norm_parameters(body)]
    ['1.weight', '1.bias']
    """
    found = set()
    for layer in body.modules():
        known, called = isinstance(layer, NORMS), "norm" in type(layer).__name__.lower()
        for parameter in layer.parameters(recurse=False):
            if known or (called and sum(side > 1 for side in parameter.shape) <= 1):
                found.add(id(parameter))
    return found
