"""Routes about a model of one class an image: its summary, and the map of its images."""

import threading
from dataclasses import asdict
from functools import lru_cache

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from metarep.app.about import model_name
from metarep.app.limits import shown_name
from metarep.app.schemas import Dot, ImageOut, Map, Summary, Suspect
from metarep.app.service import Served
from metarep.encoders.map import neighbour_map
from metarep.machine.version import __version__
from metarep.model.model import Model
from metarep.model.summary import summary

router = APIRouter(tags=["about"])
_map_lock = threading.Lock()


@router.get("/summary")
async def get_summary(service: Served) -> Summary:
    """Return what the model is, how far it can be trusted, and which images look mislabelled."""
    facts = await service.run(lambda model, _: summary(model))
    facts["classes"] = len(facts["classes"])
    facts["encoder"] = shown_name(facts["encoder"], 0)  # it may be a path
    facts["suspects"] = [
        Suspect(**{**suspect, "item": shown_name(suspect["item"], suspect["id"])}) for suspect in facts["suspects"]
    ]
    facts["copies"] = [
        [ImageOut(id=image["id"], item=shown_name(image["item"], image["id"])) for image in group]
        for group in facts["copies"]
    ]
    return Summary(**facts, name=model_name(service), version=__version__, limits=asdict(service.limits))


@router.get("/map")
async def get_map(service: Served) -> Map:
    """Return a point in the plane for each image, so that similar images are near each other (t-SNE).

    The map is computed when it is first requested, and kept until the model changes.
    """
    model = await service.model()
    return await run_in_threadpool(_map, model)  # beside the batcher's thread, which goes on with other requests


def _map(model: Model) -> Map:
    with _map_lock:  # a second request for the same map waits and then takes it from the cache
        return _cached_map(model)


@lru_cache(maxsize=1)
def _cached_map(model: Model) -> Map:
    gallery = model.gallery
    if not len(gallery):
        return Map(share=0, dots=[])
    points, share = neighbour_map(model.features)
    rows = zip(gallery.ids.tolist(), points.tolist(), gallery.classes.tolist(), strict=True)
    dots = [Dot(id=number, x=round(x, 4), y=round(y, 4), label=gallery.names[index]) for number, (x, y), index in rows]
    return Map(share=share, dots=dots)
