"""Schemas: the JSON of requests and responses, which OpenAPI documents."""

from typing import Any

from pydantic import BaseModel, Field

from metarep.app.limits import shown_name
from metarep.model.answers import Answer, LabelAnswer, Neighbour


class NeighbourOut(BaseModel):
    """An image of the model that is similar to the query."""

    id: int
    item: str = Field(description="the file's name when it was added")
    label: str = Field(description="its class")
    similarity: float = Field(description="cosine similarity of the features, at most 1")


class AnswerOut(BaseModel):
    """The model's answer for one image."""

    item: str = Field(description="the file's name")
    label: str = Field(description="the most probable class")
    probability: float = Field(description="probability of this class, 0 to 1, if the image belongs to one of them")
    known: bool = Field(description="false if the image is unlike all classes ('none of these')")
    label_set: list[str] = Field(description="the classes that it may plausibly be, the most probable first")
    probabilities: dict[str, float] = Field(description="probability of each class, 0 to 1")
    neighbours: list[NeighbourOut] = Field(description="the most similar images of the model, the nearest first")


class Answers(BaseModel):
    """One answer per image, in the order of the request."""

    answers: list[AnswerOut]


class SaidLabel(BaseModel):
    """A label that an image has."""

    label: str
    probability: float = Field(description="its probability, 0 to 1, which is at least its threshold")


class LabelAnswerOut(BaseModel):
    """The answer for one image of a model of several labels an image."""

    item: str = Field(description="the file's name")
    labels: list[SaidLabel] = Field(description="the labels that it has, the most probable first; empty if it has none")
    probabilities: dict[str, float] = Field(description="probability of each label, 0 to 1; they need not sum to 1")


class LabelAnswers(BaseModel):
    """One answer per image, in the order of the request."""

    answers: list[LabelAnswerOut]


class LabelOut(BaseModel):
    """A label of the model."""

    label: str
    images: int = Field(description="number of the model's images that have it")
    threshold: float = Field(description="the probability from which an image is said to have it")
    average_precision: float | None = Field(description="in percent, of images left out; null if none could be")


class LabelSummary(BaseModel):
    """What a model of several labels an image is, and how far it can be trusted."""

    name: str = Field(description="name of the model's folder")
    version: str = Field(description="version of metarep")
    encoder: str | None
    size: list[int] = Field(description="height and width in pixels to which the encoder scales images")
    head: dict[str, Any] = Field(description="the head and its settings")
    images: int = Field(description="number of images that it has learned")
    labels: list[LabelOut]
    held_out: dict[str, Any] | None = Field(
        description="mean average precision, micro and macro F1 in percent with their intervals, of images left out; "
        "null if none could be"
    )
    limits: dict[str, float] = Field(description="the limits of this server")


class Neighbours(BaseModel):
    """The result of a search, the most similar image first."""

    neighbours: list[NeighbourOut]


class PoolImage(BaseModel):
    """An unlabelled image, encoded so that a later request need not bring its file."""

    item: str = Field(description="the file's name")
    encoded: str = Field(description="the image as this model encodes it, in base64")


class Suggested(BaseModel):
    """An unlabelled image that is worth a label."""

    row: int = Field(description="its place among the images of the request, from 0")
    label: str = Field(description="the class that the model finds most probable")
    second: str = Field(description="the class that it finds second; empty if there is a single class")
    margin: float = Field(description="the difference of their probabilities; small if the model is in doubt")
    stands_for: float = Field(description="how well it stands for all images, beyond those above it, 0 to 1")
    known: bool = Field(description="false if the image is unlike all classes ('none of these')")
    copies: list[int] = Field(description="places of near copies of it, which are not suggested")
    guesses: dict[str, float] = Field(description="the most probable classes, at most nine, with their probability")


class Need(BaseModel):
    """A class, and whether it needs more images than the others."""

    label: str
    images: int = Field(description="number of its images")
    accuracy: float | None = Field(description="percent of them that are right when left out; null if none was")
    taken_for: dict[str, float] = Field(description="the classes that they were taken for, and how many")
    why: str = Field(description="why it needs more: 'inaccurate', 'single' or 'few'; empty if it does not")


class Suggestions(BaseModel):
    """Which images to label next, the most useful first, and the classes, the neediest first."""

    images: list[PoolImage] = Field(description="the images of the request, if it brought files")
    suggestions: list[Suggested]
    classes: list[Need]


class ClassOut(BaseModel):
    """A class of the model."""

    name: str
    images: int = Field(description="number of its images")
    ids: list[int] = Field(description="numbers of its images, the oldest first")
    alike: list[str] = Field(description="classes whose names differ only in case or in letters that look the same")


class Classes(BaseModel):
    """All classes of the model, the oldest first."""

    classes: list[ClassOut]


class ImageOut(BaseModel):
    """An image of the model."""

    id: int
    item: str = Field(description="the file's name when it was added")


class Images(BaseModel):
    """The images of one class, the oldest first."""

    label: str
    images: list[ImageOut]


class RepeatOut(BaseModel):
    """An uploaded image that the model has already. It is not added if it has the same class there."""

    item: str = Field(description="the uploaded file's name")
    same_as: str = Field(description="the name of the image that the model has")
    label: str = Field(description="the class of the image that the model has")


class Learned(BaseModel):
    """The images that were added to a class."""

    label: str = Field(description="the class, by the name that the model has for it")
    ids: list[int] = Field(description="numbers of the new images")
    repeats: list[RepeatOut] = Field([], description="uploaded images that the model has already")


class Rename(BaseModel):
    """A request to rename a class."""

    name: str = Field(description="the class")
    to: str = Field(description="its new name")
    merge: bool = Field(False, description="if a class of the new name exists, merge the two")


class Move(BaseModel):
    """A request to move an image to another class."""

    to: str = Field(description="the class that the image belongs to; it may be new")


class Dot(BaseModel):
    """An image on the map."""

    id: int
    x: float = Field(description="0 to 1")
    y: float = Field(description="0 to 1")
    label: str = Field(description="its class")


class Map(BaseModel):
    """A point in the plane for each image; similar images are near each other."""

    share: float = Field(
        description="how much of each image's neighbourhood the map keeps, 0 to 1: the mean share of its five most "
        "similar images that are among its five nearest on the map"
    )
    dots: list[Dot]


class Suspect(BaseModel):
    """An image that is probably in the wrong class."""

    id: int
    item: str = Field(description="the file's name when it was added")
    label: str = Field(description="the class that it is in")
    likelier: str = Field(description="the class that it looks like")
    probability: float = Field(description="probability of that class, 0 to 1")


class Summary(BaseModel):
    """What the model is, and how far it can be trusted."""

    name: str = Field(description="name of the model's folder")
    version: str = Field(description="version of metarep")
    encoder: str | None
    size: list[int] = Field(description="height and width in pixels to which the encoder scales images")
    head: dict[str, Any] = Field(description="the head and its settings")
    classes: int = Field(description="number of classes")
    images: int = Field(description="number of images")
    trust: dict[str, Any] = Field(
        description="leave-one-out accuracy in percent with its interval, thresholds, and where they come from; "
        "lowered_by says by how many points it was lowered, because the same images have chosen the encoder"
    )
    suspects: list[Suspect] = Field(description="images that are probably in the wrong class")
    copies: list[list[ImageOut]] = Field([], description="groups of images that are nearly the same picture")
    limits: dict[str, float] = Field(description="the limits of this server")


class Refusal(BaseModel):
    """Why a request was refused."""

    detail: str = Field(description="one line: what was given, and what is wrong with it")
    advice: str | None = Field(None, description="one line: what to do, if there is something to do")


def neighbour_out(near: Neighbour) -> NeighbourOut:
    """Return a neighbour as JSON holds it, its similarity rounded to four digits."""
    return NeighbourOut(
        id=near.id, item=shown_name(near.item, near.id), label=near.label, similarity=round(near.similarity, 4)
    )


def answer_out(item: str, answer: Answer) -> AnswerOut:
    """Return an answer as JSON holds it, its probabilities rounded to six digits.

    Args:
        item: the name of the file that was asked about.
        answer: the model's answer.
    """
    return AnswerOut(
        item=item,
        label=answer.label,
        probability=round(answer.probability, 6),
        known=answer.known,
        label_set=list(answer.label_set),
        probabilities={name: round(value, 6) for name, value in answer.probabilities.items()},
        neighbours=[neighbour_out(near) for near in answer.neighbours],
    )


def label_answer_out(item: str, answer: LabelAnswer) -> LabelAnswerOut:
    """Return an answer of several labels as JSON holds it, its probabilities rounded to six digits.

    Args:
        item: the name of the file that was asked about.
        answer: the model's answer.
    """
    return LabelAnswerOut(
        item=item,
        labels=[SaidLabel(label=name, probability=round(value, 6)) for name, value in answer.labels.items()],
        probabilities={name: round(value, 6) for name, value in answer.probabilities.items()},
    )
