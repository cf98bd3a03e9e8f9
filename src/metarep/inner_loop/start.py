"""Start: everything an inner loop starts from."""

from dataclasses import dataclass

from torch import Tensor

from metarep.encoders import Encoder
from metarep.inner_loop.head import Head
from metarep.inner_loop.rates import Rates
from metarep.normalisation import Normalisation


@dataclass(frozen=True)
class Start:
    """Everything an inner loop starts from.

    Args:
        encoder: its body is what the steps adapt.
        head: the classifier on top.
        rates: inner learning rates.
        normalisation: whose statistics norm layers use.
    """

    encoder: Encoder
    head: Head
    rates: Rates
    normalisation: Normalisation

    @property
    def body(self) -> list[Tensor]:
        """The body's parameters, in the order in which weights are passed around."""
        return list(self.encoder.body.parameters())
