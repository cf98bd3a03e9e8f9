"""Routes that tell: what the model is, how far to trust it, how the server is, and the model itself."""

import threading
from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache
from typing import IO
from urllib.parse import quote

from fastapi import APIRouter, HTTPException
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from metarep.app.archive import pack
from metarep.app.limits import shown_name
from metarep.app.schemas import Dot, ImageOut, Map, Refusal, Summary, Suspect
from metarep.app.service import Served, Service
from metarep.encoders.map import neighbour_map
from metarep.machine.device import resident_bytes
from metarep.machine.version import __version__
from metarep.model.model import Model
from metarep.model.summary import summary

router = APIRouter(tags=["about"])
_drawing = threading.Lock()
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
    facts["copies"] = [
        [ImageOut(id=each["id"], item=shown_name(each["item"], each["id"])) for each in group]
        for group in facts["copies"]
    ]
    return Summary(**facts, name=called(service), version=__version__, limits=asdict(service.limits))


@router.get("/map")
async def draw_map(service: Served) -> Map:
    """Where the images lie in the representation: on a plane on which like images are near."""
    model = await service.ask(lambda model, _: model)
    return await run_in_threadpool(_map, model)  # a second or two, in which questions go on being answered


def _map(model: Model) -> Map:
    with _drawing:  # whoever asks for the same map meanwhile waits for it
        return _drawn(model)


@lru_cache(maxsize=1)
def _drawn(model: Model) -> Map:
    gallery = model.gallery
    if not len(gallery):
        return Map(share=0, dots=[])
    places, share = neighbour_map(model.features)
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


@router.get(
    "/model.onnx",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/octet-stream": {}}}, 501: {"model": Refusal}},
)
async def export(service: Served) -> StreamingResponse:
    """The model as one ONNX graph, for programs without metarep; it takes some seconds to make."""
    classes = await service.ask(lambda model, _: len(model.gallery.names))
    if classes < 2:
        raise HTTPException(409, "a model needs two classes before it can be exported")
    file = await service.exporter.onnx()
    headers = {"content-disposition": f"attachment; filename*=UTF-8''{quote(called(service))}.onnx"}
    return StreamingResponse(_chunks(file), media_type="application/octet-stream", headers=headers)


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
