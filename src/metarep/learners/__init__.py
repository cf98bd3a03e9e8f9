"""Learners: what is deployed, an encoder together with a way to solve a new task from its support set."""

from typing import Any

from metarep.encoders import Encoder
from metarep.errors import unknown
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
    "build_learner",
    "described",
]

LEARNERS: dict[str, type[Learner]] = {
    "prototypes": Prototypes,
    "neighbours": Neighbours,
    "linear": Linear,
    "descent": GradientDescent,
}
"""The learners by the name that checkpoints and ``--learner`` use."""
TRAINED: dict[str, type[Learner]] = {"pairwise": Pairwise}  # with weights that only a training gives


def build_learner(name: str, encoder: Encoder, **settings: Any) -> Learner:  # noqa: ANN401 - the learner's own
    """A learner by name; ``settings`` are those of its class.

    >>> from metarep.encoders import Preprocess, build_encoder
    >>> encoder = build_encoder("conv4", Preprocess((28, 28), 1, (0.0,), (1.0,)))
    >>> build_learner("prototypes", encoder, metric="cosine").settings
    {'metric': 'cosine', 'temperature': 1.0}
    """
    kinds = LEARNERS | TRAINED
    if name not in kinds:
        raise unknown("learner", name, kinds)
    return kinds[name](encoder, **settings)


def described(learner: Learner) -> dict[str, Any] | None:
    """What :func:`build_learner` makes the same learner of, its weights apart; None for a class of somebody's own."""
    for name, kind in (LEARNERS | TRAINED).items():
        if type(learner) is kind:
            return {"name": name, **learner.settings}
    return None
