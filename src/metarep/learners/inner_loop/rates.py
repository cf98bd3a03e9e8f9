"""Rates: inner learning rates, fixed or learned."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from metarep.errors import MetarepError, one_of

RateKind = Literal["fixed", "parameter", "layer"]
Rate = Tensor | float


class Rates(nn.Module):
    """The inner learning rates: one for every tensor that the inner loop adapts, at every step.

    Learned rates are stored as logarithms, so that they stay positive. They are a module, so that weight decay can
    leave them out. If a test takes more steps than there are rates, the last rate repeats.

    Li et al., Meta-SGD, 2017 (``parameter``: one rate for each weight, equal at every step; in the paper a rate may
    become negative); Antoniou et al., How to Train Your MAML, 2019 (``layer``: one rate for each tensor and step).

    Args:
        kind: ``fixed``, ``parameter`` or ``layer``.
        shapes: shapes of the adapted tensors, in their order; ``()`` for a tensor whose shape depends on the task.
        steps: number of inner steps that have their own rates, for ``layer``.
        lr: initial value of all rates.

    Raises:
        MetarepError: ``kind`` is unknown, or ``lr`` is not above 0 and finite.

    >>> Rates("fixed", [(3, 2), (3,)], steps=1, lr=0.1).table(2)
    [[0.1, 0.1], [0.1, 0.1]]
    """

    def __init__(self, kind: RateKind, shapes: Sequence[tuple[int, ...]], steps: int, lr: float) -> None:
        super().__init__()
        one_of("rates", kind, get_args(RateKind))
        if not 0 < lr < math.inf:
            raise MetarepError(f"the inner learning rate is {lr}; it must be above 0 and finite")
        self.kind, self.lr, self.tensors = kind, lr, len(shapes)
        start = [] if kind == "fixed" else shapes if kind == "parameter" else [(len(shapes),)] * max(1, steps)
        self.logs = nn.ParameterList(nn.Parameter(torch.full(shape, math.log(lr))) for shape in start)

    def table(self, steps: int) -> list[Sequence[Rate]]:
        """Returns for each of ``steps`` steps the rate of each tensor: a number, or a tensor that broadcasts to it."""
        if self.kind == "fixed":
            return [[self.lr] * self.tensors] * steps
        rates = [log.exp() for log in self.logs]
        if self.kind == "parameter":
            return [rates] * steps
        rows = [rate.unbind() for rate in rates]
        return [rows[min(step, len(rows) - 1)] for step in range(steps)]
