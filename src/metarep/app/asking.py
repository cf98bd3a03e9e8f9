"""Routes that answer questions: which class an image belongs to, and which images are similar to it."""

from typing import Annotated

from fastapi import APIRouter, File, HTTPException, Query, UploadFile
from torch import Tensor

from metarep.app.schemas import Answers, NeighbourOut, Neighbours, answer_out, neighbour_out
from metarep.app.service import Served
from metarep.model.answers import Answer, Neighbour
from metarep.model.model import Model

router = APIRouter(tags=["ask"])
NeighbourCount = Annotated[int, Query(ge=0, le=50, description="number of nearest images in each answer")]


@router.post("/predict")
async def predict(
    service: Served, files: Annotated[list[UploadFile], File(description="images")], neighbours: NeighbourCount = 3
) -> Answers:
    """Classify each image: its class, the probability, and the images of the model that are most similar to it."""
    pixels, items = await service.read(files)

    def answer(model: Model, rows: Tensor) -> list[Answer]:
        if not len(model.gallery):
            raise HTTPException(409, "the model has no classes yet; add some images first")
        return model.answer(rows, neighbours)

    answers = await service.run(answer, pixels, items)
    for each in answers:
        service.metrics.count("metarep_predictions_total", known=str(each.known).lower())
    return Answers(answers=[answer_out(*pair) for pair in zip(items, answers, strict=True)])


@router.post("/search")
async def search(
    service: Served,
    file: Annotated[UploadFile | None, File(description="an image")] = None,
    id: Annotated[int | None, Query(description="the number of an image of the model, instead of a file")] = None,
    neighbours: Annotated[int, Query(ge=1, le=50, description="number of images to return")] = 12,
) -> Neighbours:
    """Return the images of the model that are most similar to an image, the most similar first.

    The query is either an uploaded file, or the number of an image of the model, which is then left out of the result.
    """
    if (file is None) == (id is None):
        raise HTTPException(422, "a search needs either a file or an id; give one of the two")
    pixels, items = (None, []) if file is None else await service.read([file])

    def nearest(model: Model, rows: Tensor) -> list[NeighbourOut]:
        near = model.nearest(rows, neighbours)[0] if id is None else _nearest_to(model, id, neighbours)
        return [neighbour_out(each) for each in near]

    return Neighbours(neighbours=await service.run(nearest, pixels, items))


def _nearest_to(model: Model, number: int, neighbours: int) -> list[Neighbour]:
    """Return the nearest other images to an image of the model."""
    row = model.gallery.row(number)
    near = model.nearest(model.gallery.rows[row : row + 1], neighbours + 1)[0]
    return [each for each in near if each.id != number][:neighbours]
