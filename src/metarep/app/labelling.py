"""Routes of a model of several labels an image: which labels an image has, and what the model is; the others refuse."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, File, HTTPException, Request, UploadFile
from fastapi.routing import APIRoute
from torch import Tensor

from metarep.app.about import model_name
from metarep.app.limits import shown_name
from metarep.app.schemas import LabelAnswers, LabelOut, LabelSummary, label_answer_out
from metarep.app.service import Served
from metarep.machine.version import __version__
from metarep.model.answers import LabelAnswer
from metarep.model.multi_label.model import MultiLabelModel

router = APIRouter()


@router.post("/predict", tags=["ask"])
async def predict_labels(
    service: Served, files: Annotated[list[UploadFile], File(description="images")]
) -> LabelAnswers:
    """Say of each image which labels it has, and give the probability of every label."""
    pixels, items = await service.read(files)

    def answer(model: MultiLabelModel, rows: Tensor) -> list[LabelAnswer]:
        return model.answer(rows)

    answers = await service.run(answer, pixels, items)
    for each in answers:
        said = ("none", "one", "several")[min(len(each.labels), 2)]
        service.metrics.count("metarep_label_answers_total", labels=said)
    return LabelAnswers(answers=[label_answer_out(*pair) for pair in zip(items, answers, strict=True)])


@router.get("/summary", tags=["about"])
async def label_summary(service: Served) -> LabelSummary:
    """Return what the model is: its labels, from which probability each is said, and how far they can be trusted."""
    model: MultiLabelModel = await service.model()
    facts = model.as_dict()
    return LabelSummary(
        name=model_name(service),
        version=__version__,
        encoder=shown_name(facts["encoder"], 0),  # it may be a path
        size=list(model.learner.encoder.preprocess.size),
        head=model.head,
        images=facts["images"],
        labels=[LabelOut(label=name, **own) for name, own in facts["labels"].items()],
        held_out=facts["held_out"],
        limits=asdict(service.limits),
    )


def refusing(routers: Iterable[APIRouter]) -> APIRouter:
    """Return routes that refuse, with status 409 and one sentence, what is for models of one class an image.

    Args:
        routers: all routes of such a model; those that :data:`router` has too are left out.
    """
    own, refusals = set(_requests(router)), APIRouter()
    for path, method in [each for some in routers for each in _requests(some)]:
        if (path, method) not in own:
            refusals.add_api_route(path, _refuse, methods=[method], include_in_schema=False)
    return refusals


def _requests(some: APIRouter) -> list[tuple[str, str]]:
    """Return the path and the method of each request that a router answers."""
    routes = [route for route in some.routes if isinstance(route, APIRoute)]
    return [(route.path, method) for route in routes for method in route.methods or ()]


async def _refuse(request: Request) -> None:
    what = f"{request.method} {request.url.path}"
    raise HTTPException(
        409,
        f"{what} is for models of one class an image, and this one has several labels an image; it answers POST "
        "/predict, and metarep add and metarep remove change it",
    )
