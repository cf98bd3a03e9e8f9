"""Answers: what a model says of an image."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Neighbour:
    """An image of the gallery that a query looked like.

    Args:
        id, item, label: which, what it is called, of what class.
        similarity: cosine of the features.
    """

    id: int
    item: str
    label: str
    similarity: float


@dataclass(frozen=True)
class Answer:
    """What a model says of an image.

    Args:
        label: the likeliest class.
        probability: that it is this class, if it is any.
        known: False if the image is like none of the classes.
        label_set: the classes that it may well be, the likeliest first; see :class:`metarep.model.trust.trust.Trust`.
        probabilities: of all classes, by name.
        neighbours: the most similar images of the gallery, the nearest first.
    """

    label: str
    probability: float
    known: bool
    label_set: tuple[str, ...]
    probabilities: dict[str, float]
    neighbours: tuple[Neighbour, ...]
