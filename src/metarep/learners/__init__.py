"""Learners: what is deployed, an encoder together with a way to solve a new task from its support set."""

from metarep.learners.descent import GradientDescent
from metarep.learners.labelled_index import LabelledIndex
from metarep.learners.learner import Learner, State
from metarep.learners.linear import Linear
from metarep.learners.neighbours import Neighbours
from metarep.learners.pairwise import Pairwise
from metarep.learners.prototypes import Prototypes

__all__ = [
    "LEARNERS",
    "GradientDescent",
    "LabelledIndex",
    "Learner",
    "Linear",
    "Neighbours",
    "Pairwise",
    "Prototypes",
    "State",
]

LEARNERS: dict[str, type[Learner]] = {
    "prototypes": Prototypes,
    "neighbours": Neighbours,
    "linear": Linear,
    "descent": GradientDescent,
}
"""The learners by the name that checkpoints and ``--learner`` use."""
