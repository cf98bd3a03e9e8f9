"""Start: everything an inner loop starts from."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from metarep.encoders import Encoder
from metarep.inner_loop.head import Head
from metarep.inner_loop.rates import Rate, Rates
from metarep.normalisation import Normalisation


@dataclass(frozen=True)
class Start:
    """Everything an inner loop starts from.

    Args:
        encoder: its body is what the steps adapt.
        head: the classifier on top.
        rates: inner learning rates.
        normalisation: whose statistics norm layers use.
        moved: which of the tensors that have rates the steps change; None for all.
    """

    encoder: Encoder
    head: Head
    rates: Rates
    normalisation: Normalisation
    moved: tuple[int, ...] | None = None

    @property
    def body(self) -> list[Tensor]:
        """The body's parameters, in the order in which weights are passed around."""
        return list(self.encoder.body.parameters())

    def table(self, steps: int) -> list[Sequence[Rate]]:
        """For each step the rate of each tensor that it changes."""
        rows = self.rates.table(steps)
        return rows if self.moved is None else [[row[place] for place in self.moved] for row in rows]
