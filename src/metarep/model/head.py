"""The head of a model: the learner that maps features to the user's classes, and its default settings."""

from typing import Any

from torch import nn

from metarep.encoders import Encoder, Preprocess
from metarep.errors import Advice, MetarepError, unknown
from metarep.learners import INDUCTIVE, LEARNERS, Learner
from metarep.weights.representation import Representation

# The learner for encoders without one: it was best on photographs of unseen classes (docs/is-it-true.md).
HEAD: dict[str, Any] = {
    "name": "linear",
    "solver": "logistic",
    "strength": 0.1,
    "power": 0.7,
    "centre": True,
    "balance": True,
    "level": True,
}


def without_level(head: dict[str, Any]) -> dict[str, Any]:
    """The settings of a head but for ``level``, which earlier versions did not have.

    With one image a class, or any other number that is the same for all, it changes nothing.

    >>> without_level(HEAD) == without_level({**HEAD, "level": False})
    True
    """
    return {name: value for name, value in head.items() if name != "level"}


def build_head(
    representation: Representation | None, head: dict[str, Any] | None = None
) -> tuple[dict[str, Any], Learner]:
    """Build the learner of a model.

    Args:
        representation: the encoder; None if features are given instead of images.
        head: the name and settings of the learner. ``{"name": "trained"}`` is the learner that was trained with the
            encoder. None takes that one if there is one, or else ``HEAD``.

    Returns:
        The name and settings, with the default filled in; and the learner.

    Raises:
        MetarepError: the learner is unknown or transductive, or no learner was trained with the encoder.

    >>> settings, learner = build_head(None, {"name": "neighbours", "k": 3})
    >>> settings["name"], learner.settings["k"]
    ('neighbours', 3)
    """
    trained = representation.learner if representation else None
    head = head or ({"name": "trained"} if trained is not None else HEAD)
    name, settings = head["name"], {key: value for key, value in head.items() if key != "name"}
    if name == "trained":
        if trained is None:
            raise MetarepError(
                "no learner for any number of classes was trained with this encoder",
                advice=Advice("choose another learner, such as {learner}", learner="linear"),
            )
        return head, trained
    if name not in LEARNERS:
        raise unknown("learner", name, INDUCTIVE)
    if name not in INDUCTIVE:
        raise MetarepError(
            f"the learner {name!r} is transductive: its answer to an image depends on the other images of the task, so "
            "it cannot answer for one image alone",
            advice=Advice("take another one, such as {learner}", learner="prototypes"),
        )
    encoder = representation.encoder if representation else _no_encoder()
    return head, LEARNERS[name](encoder, **settings)


def _no_encoder() -> Encoder:
    """An encoder that never runs, for a model of features."""
    return Encoder(nn.Flatten(), Preprocess((1, 1), 1, (0.0,), (1.0,)))
