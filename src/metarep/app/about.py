"""Routes that tell: what the model is, how far to trust it, how the server is, and the model itself."""

from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache
from typing import IO
from urllib.parse import quote

from fastapi import APIRouter, HTTPException
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from metarep import __version__
from metarep.app.archive import pack
from metarep.app.limits import shown_name
from metarep.app.schemas import Dot, Map, Summary, Suspect
from metarep.app.service import Served, Service
from metarep.device import resident_bytes
from metarep.model import Model
from metarep.model_folder import summary
from metarep.plane import flatten

router = APIRouter(tags=["about"])
CHUNK = 1 << 18


@router.get("/summary")
async def tell_summary(service: Served) -> Summary:
    """What the model is, how far to trust it, and which images look mislabelled."""
    facts = await service.ask(lambda model, _: summary(model))
    facts["classes"] = len(facts["classes"])
    facts["encoder"] = shown_name(facts["encoder"], 0)  # it may be a path
    facts["suspects"] = [
        Suspect(**{**each, "item": shown_name(each["item"], each["id"])}) for each in facts["suspects"]
    ]
    facts["copies"] = [[shown_name(item, 0) for item in items] for items in facts["copies"]]
    return Summary(**facts, name=called(service), version=__version__, limits=asdict(service.limits))


@router.get("/map")
async def draw_map(service: Served) -> Map:
    """Where the images lie in the representation, flattened to a plane."""
    return await service.ask(lambda model, _: _map(model))


@lru_cache(maxsize=1)
def _map(model: Model) -> Map:
    gallery = model.gallery
    if not len(gallery):
        return Map(share=0, dots=[])
    places, share = flatten(model.features)
    rows = zip(gallery.ids.tolist(), places.tolist(), gallery.classes.tolist(), strict=True)
    dots = [Dot(id=number, x=round(x, 4), y=round(y, 4), label=gallery.names[own]) for number, (x, y), own in rows]
    return Map(share=share, dots=dots)


@router.get("/model", response_class=StreamingResponse, responses={200: {"content": {"application/zip": {}}}})
async def download(service: Served) -> StreamingResponse:
    """The model folder as a zip file, which ``metarep predict`` and ``metarep serve`` open once it is unpacked."""
    name = called(service)
    file = await run_in_threadpool(pack, service.folder, name)
    headers = {"content-disposition": f"attachment; filename*=UTF-8''{quote(name)}.zip"}
    return StreamingResponse(_chunks(file), media_type="application/zip", headers=headers)


@router.get("/health")
async def health(service: Served) -> dict[str, str]:
    """Whether questions are answered: the model can be read, and the thread that reads it is there."""
    if not service.batcher.alive:
        raise HTTPException(503, "the thread that answers has ended; start the server anew")
    await service.ask(lambda model, _: len(model.gallery))
    return {"status": "ok", "version": __version__}


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(service: Served) -> PlainTextResponse:
    """Counters, times and sizes in Prometheus's text format."""
    gallery = (await service.ask(lambda model, _: model)).gallery
    text = service.metrics.text(
        {
            "metarep_classes": ("classes of the model", len(gallery.names)),
            "metarep_images": ("images of the model", len(gallery)),
            "process_resident_memory_bytes": ("memory of the server", resident_bytes()),
        }
    )
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


def called(service: Service) -> str:
    """The name of the model's folder."""
    return shown_name(service.folder.path.resolve().name, 0)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK):
            yield chunk
