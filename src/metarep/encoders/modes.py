"""Evaluation mode for a while: modules are evaluated, and then get back the mode that each of them had."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """A context in which a module is in evaluation mode; at its end every part of it has its former mode again.

    Args:
        module: a network, an encoder or a learner; changed in place.

    >>> network = nn.Sequential(nn.Dropout(), nn.ReLU().eval())
    >>> with evaluating(network):
    ...     mode = network.training
    >>> mode, network.training, network[1].training
    (False, True, False)
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
