"""Scope: which tensors of the body the inner steps change."""

from typing import Literal

from torch import nn

from metarep.encoders.freezing import stages
from metarep.encoders.normalisation import norm_parameters

Scope = Literal["all", "all-but-norms", "norms", "last-block", "head"]


def positions_in(body: nn.Module, scope: Scope) -> tuple[int, ...]:
    """The positions, among the parameters of a body, of those that belong to a scope.

    Args:
        body: the body of an encoder.
        scope: ``all``, ``all-but-norms``, ``norms`` (scales and shifts of norm layers), ``last-block`` (the last group
            of :func:`metarep.encoders.freezing.stages`), or ``head`` for none.

    >>> body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    >>> positions_in(body, "norms"), positions_in(body, "last-block")
    ((2, 3), (4, 5))
    """
    if scope == "head":
        return ()
    parameters = list(body.parameters())
    chosen = {id(parameter) for parameter in parameters}
    if scope == "last-block":
        chosen = {id(parameter) for group in stages(body)[-1:] for parameter in group}
    elif scope != "all":
        norms = norm_parameters(body)
        chosen = norms if scope == "norms" else chosen - norms
    return tuple(i for i, parameter in enumerate(parameters) if id(parameter) in chosen)
