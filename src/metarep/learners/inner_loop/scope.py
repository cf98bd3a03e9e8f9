"""Scope: which tensors of the body the inner steps change."""

from torch import nn

from metarep.encoders.freezing import stages
from metarep.encoders.low_rank import MOST, is_rank, low_rank_parameters
from metarep.encoders.normalisation import norm_parameters
from metarep.errors import MetarepError, unknown

SCOPES = ("all", "all-but-norms", "norms", "last-block", "head", "lora:RANK")


def rank_of(scope: str) -> int:
    """The rank of the low-rank updates that a scope asks for; 0 for a scope without any.

    Raises:
        MetarepError: there is no such scope, or what follows ``lora:`` is not a rank.

    >>> rank_of("lora:8"), rank_of("norms")
    (8, 0)
    """
    name, colon, rank = scope.partition(":")
    if name == "lora":
        if not is_rank(rank):
            raise MetarepError(f"scope {scope!r} needs a rank from 1 to {MOST:,}, as in lora:8")
        return int(rank)
    if scope not in SCOPES or colon:
        raise unknown("scope", scope, SCOPES)
    return 0


def positions_in(body: nn.Module, scope: str) -> tuple[int, ...]:
    """The positions, among the parameters of a body, of those that belong to a scope.

    Args:
        body: the body of an encoder.
        scope: ``all``, ``all-but-norms``, ``norms`` (scales and shifts of norm layers), ``last-block`` (the last group
            of :func:`metarep.encoders.freezing.stages`), ``lora:RANK`` (the low-rank updates that the body has got by
            :func:`metarep.encoders.low_rank.add_low_rank`), or ``head`` for none.

    >>> body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    >>> positions_in(body, "norms"), positions_in(body, "last-block")
    ((2, 3), (4, 5))
    """
    if scope == "head":
        return ()
    parameters = list(body.parameters())
    chosen = {id(parameter) for parameter in parameters}
    if rank_of(scope):
        chosen = low_rank_parameters(body)
    elif scope == "last-block":
        chosen = {id(parameter) for group in stages(body)[-1:] for parameter in group}
    elif scope != "all":
        norms = norm_parameters(body)
        chosen = norms if scope == "norms" else chosen - norms
    return tuple(i for i, parameter in enumerate(parameters) if id(parameter) in chosen)
