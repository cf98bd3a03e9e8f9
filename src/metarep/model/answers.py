"""The answer of a model to an image: a class, or several labels."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Neighbour:
    """An image of the gallery that is similar to a query image.

    Args:
        id: its id.
        item: the name that people use for it, mostly its path.
        label: its class.
        similarity: the cosine of the two features, -1 to 1.

    >>> nearest = Neighbour(3, "photos/hawkmoth/1.jpg", "hawkmoth", 0.93)
    >>> f"most like {nearest.item} ({nearest.similarity:.2f})"
    'most like photos/hawkmoth/1.jpg (0.93)'
    """

    id: int
    item: str
    label: str
    similarity: float


@dataclass(frozen=True)
class Answer:
    """The answer of a model to one image.

    Args:
        label: the most probable class.
        probability: the probability of this class, given that the image belongs to one of the classes.
        known: whether the image is like any of the classes.
        label_set: the probable classes, the most probable first; see ``likely`` of
            :class:`metarep.model.trust.trust.Trust`.
        probabilities: the probability of each class, by name.
        neighbours: the most similar images of the gallery, the nearest first.

    >>> answer = Answer("cup", 0.9, True, ("cup",), {"cup": 0.9, "mug": 0.1}, ())
    >>> answer.label if answer.known and len(answer.label_set) == 1 else "ask a person"
    'cup'
    """

    label: str
    probability: float
    known: bool
    label_set: tuple[str, ...]
    probabilities: dict[str, float]
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True)
class LabelAnswer:
    """The answer of a model of several labels to one image.

    Args:
        labels: the labels that it has, the most probable first, with their probabilities.
        probabilities: the probability of each label, in the order of the model; they need not add up to 1.
    """

    labels: dict[str, float]
    probabilities: dict[str, float]
