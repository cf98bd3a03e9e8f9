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
    """A learning rate for every tensor that the inner loop adapts, at every step.

    Learned rates are kept as logarithms, so that they stay positive, in a module of their own, so that they can be
    left out of weight decay. At test time with more steps than rates the last rate repeats.

    Li et al., Meta-SGD, 2017 (``parameter``: one rate a weight, the same at every step; theirs may turn negative);
    Antoniou et al., How to Train Your MAML, 2019 (``layer``: one rate a tensor and step).

    Args:
        kind: ``fixed``, ``parameter`` or ``layer``.
        shapes: of the adapted tensors, in their order; ``()`` for one whose shape depends on the task.
        steps: inner steps that have rates of their own (``layer``).
        lr: where rates start.
    """

    def __init__(self, kind: RateKind, shapes: Sequence[tuple[int, ...]], steps: int, lr: float) -> None:
        super().__init__()
        one_of("rates", kind, get_args(RateKind))
        if not 0 < lr < math.inf:
            raise MetarepError(f"the inner learning rate must be above 0 and finite, not {lr}")
        self.kind, self.lr, self.tensors = kind, lr, len(shapes)
        start = [] if kind == "fixed" else shapes if kind == "parameter" else [(len(shapes),)] * max(1, steps)
        self.logs = nn.ParameterList(nn.Parameter(torch.full(shape, math.log(lr))) for shape in start)

    def table(self, steps: int) -> list[Sequence[Rate]]:
        """For each of ``steps`` steps the rate of each tensor: a number, or a tensor that broadcasts against it."""
        if self.kind == "fixed":
            return [[self.lr] * self.tensors] * steps
        rates = [log.exp() for log in self.logs]
        if self.kind == "parameter":
            return [rates] * steps
        rows = [rate.unbind() for rate in rates]
        return [rows[min(step, len(rows) - 1)] for step in range(steps)]
