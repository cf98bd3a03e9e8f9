"""Settling: the transform of features that is the same in every task, computed once for each image."""

from abc import abstractmethod
from copy import copy

from jaxtyping import Float
from torch import Tensor

from metarep.learners.learner import Learner


class Settling(Learner):
    """A learner that transforms features before it compares them, such as to the unit sphere, and can do so in advance.

    A class allows this by ``unit = False`` in its own body. A subclass does not inherit the permission, because it may
    compare features in another way. Its rows are not transformed in advance unless it sets ``unit`` itself.
    """

    unit = False  # whether the rows are transformed already

    def settle(self, rows: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        return self._features(rows) if "unit" in vars(type(self)) else rows

    def settled(self) -> Learner:
        if "unit" not in vars(type(self)):
            return self
        same = copy(self)  # a shallow copy, with the same encoder
        same.unit = True
        return same

    @abstractmethod
    def _features(self, rows: Tensor) -> Tensor:
        """Features in the form that the learner compares; unchanged if ``unit`` says that they have this form."""
