"""Settling: what a learner does to the features of an image in every task alike is done once."""

from abc import abstractmethod
from copy import copy

from jaxtyping import Float
from torch import Tensor

from metarep.learners.learner import Learner


class Settling(Learner):
    """A learner that compares features in one form, such as on the unit sphere, and can be given them in that form.

    A class that can sets ``unit = False`` in its own body. A subclass of it may compare features in another way, so it
    does not inherit this: its rows stay as they are, unless it sets ``unit`` itself.
    """

    unit = False  # whether the rows are as the learner compares them already

    def settle(self, rows: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        return self._features(rows) if "unit" in vars(type(self)) else rows

    def settled(self) -> Learner:
        if "unit" not in vars(type(self)):
            return self
        same = copy(self)  # with the same encoder
        same.unit = True
        return same

    @abstractmethod
    def _features(self, rows: Tensor) -> Tensor:
        """Features as the learner compares them; the rows themselves if ``unit`` says that they are."""
