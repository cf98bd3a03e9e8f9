"""What goes over the wire: the shapes that OpenAPI documents."""

from typing import Any

from pydantic import BaseModel, Field

from metarep.app.limits import shown_name
from metarep.model.answers import Answer, Neighbour


class NeighbourOut(BaseModel):
    """An image of the model that looks like the one that was asked about."""

    id: int
    item: str = Field(description="what the file was called")
    label: str
    similarity: float = Field(description="cosine of the features, at most 1")


class AnswerOut(BaseModel):
    """What the model says of an image."""

    item: str = Field(description="what the file was called")
    label: str = Field(description="the likeliest class")
    probability: float = Field(description="that it is this class, if it is any")
    known: bool = Field(description="false: like none of the classes")
    label_set: list[str] = Field(description="the classes that it may well be, the likeliest first")
    probabilities: dict[str, float]
    neighbours: list[NeighbourOut]


class Answers(BaseModel):
    answers: list[AnswerOut]


class Found(BaseModel):
    neighbours: list[NeighbourOut]


class ClassOut(BaseModel):
    name: str
    images: int = Field(description="how many")
    ids: list[int] = Field(description="of the images, the oldest first")
    alike: list[str] = Field(description="classes whose names differ in case alone, or by letters drawn alike")


class Classes(BaseModel):
    classes: list[ClassOut]


class ImageOut(BaseModel):
    id: int
    item: str = Field(description="what the file was called")


class Images(BaseModel):
    label: str
    images: list[ImageOut]


class RepeatOut(BaseModel):
    """An image that the model has already; it is left out where its class is the same."""

    item: str = Field(description="what the file was called")
    same_as: str = Field(description="what the earlier one was called")
    label: str = Field(description="the class of the earlier one")


class Learned(BaseModel):
    label: str = Field(description="the class, as it is kept")
    ids: list[int] = Field(description="of the new images")
    repeats: list[RepeatOut] = Field([], description="images that were there already")


class Rename(BaseModel):
    name: str
    to: str
    merge: bool = Field(False, description="let two classes become one, where there is one called so already")


class Move(BaseModel):
    to: str = Field(description="the class that the image belongs to; it may be new")


class Dot(BaseModel):
    id: int
    x: float = Field(description="0 to 1")
    y: float = Field(description="0 to 1")
    label: str


class Map(BaseModel):
    """The gallery on a plane on which like images are near."""

    share: float = Field(description="of the five images most like each, those that are among its five nearest here")
    dots: list[Dot]


class Suspect(BaseModel):
    """An image that looks as if it were in the wrong class."""

    id: int
    item: str
    label: str
    likelier: str
    probability: float


class Summary(BaseModel):
    """What the model is, and how far to trust it."""

    name: str
    version: str = Field(description="of metarep")
    encoder: str | None
    size: list[int] = Field(description="height and width, in pixels, at which images are seen")
    head: dict[str, Any]
    classes: int
    images: int
    trust: dict[str, Any] = Field(description="accuracy in percent by leave-one-out, its interval, thresholds, source")
    suspects: list[Suspect]
    copies: list[list[ImageOut]] = Field([], description="groups of images that are nearly the same picture")
    limits: dict[str, float]


class Refusal(BaseModel):
    detail: str = Field(description="one line: what was given, and what is wrong with it")
    advice: str | None = Field(None, description="one line: what to do, where there is something to say")


def neighbour_out(near: Neighbour) -> NeighbourOut:
    return NeighbourOut(
        id=near.id, item=shown_name(near.item, near.id), label=near.label, similarity=round(near.similarity, 4)
    )


def answer_out(item: str, answer: Answer) -> AnswerOut:
    return AnswerOut(
        item=item,
        label=answer.label,
        probability=round(answer.probability, 6),
        known=answer.known,
        label_set=list(answer.label_set),
        probabilities={name: round(value, 6) for name, value in answer.probabilities.items()},
        neighbours=[neighbour_out(near) for near in answer.neighbours],
    )
