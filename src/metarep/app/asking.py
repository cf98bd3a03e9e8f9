"""Routes that ask: what is this, and what looks like it."""

from typing import Annotated

from fastapi import APIRouter, File, HTTPException, Query, UploadFile
from torch import Tensor

from metarep.app.schemas import Answers, Found, NeighbourOut, answer_out, neighbour_out
from metarep.app.service import Served
from metarep.model.answers import Answer, Neighbour
from metarep.model.model import Model

router = APIRouter(tags=["ask"])
Many = Annotated[int, Query(ge=0, le=50, description="nearest images to name")]


@router.post("/predict")
async def predict(
    service: Served, files: Annotated[list[UploadFile], File(description="images")], neighbours: Many = 3
) -> Answers:
    """Say of each image what it shows, how sure that is, and what it looked like."""
    pixels, items = await service.read(files)

    def answer(model: Model, rows: Tensor) -> list[Answer]:
        if not len(model.gallery):
            raise HTTPException(409, "the model has no classes yet; add some images first")
        return model.answer(rows, neighbours)

    answers = await service.ask(answer, pixels, items)
    for each in answers:
        service.metrics.count("metarep_predictions_total", known=str(each.known).lower())
    return Answers(answers=[answer_out(*pair) for pair in zip(items, answers, strict=True)])


@router.post("/search")
async def search(
    service: Served,
    file: Annotated[UploadFile | None, File(description="an image")] = None,
    id: Annotated[int | None, Query(description="or an image of the model")] = None,
    neighbours: Annotated[int, Query(ge=1, le=50)] = 12,
) -> Found:
    """The images of the model that are most like an image, or like one of its own; the nearest first."""
    if (file is None) == (id is None):
        raise HTTPException(422, "give a file or an id, one of the two")
    pixels, items = (None, []) if file is None else await service.read([file])

    def look(model: Model, rows: Tensor) -> list[NeighbourOut]:
        found = model.nearest(rows, neighbours)[0] if id is None else _like(model, id, neighbours)
        return [neighbour_out(near) for near in found]

    return Found(neighbours=await service.ask(look, pixels, items))


def _like(model: Model, number: int, neighbours: int) -> list[Neighbour]:
    """What is like an image of the model, but for itself."""
    row = model.gallery.row(number)
    near = model.nearest(model.gallery.rows[row : row + 1], neighbours + 1)[0]
    return [each for each in near if each.id != number][:neighbours]
