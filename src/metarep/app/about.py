"""Routes about the model and the server: summary, map, downloads, health and metrics."""

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
from metarep.machine.version import __version__
from metarep.model.model import Model
from metarep.model.summary import summary

router = APIRouter(tags=["about"])
_map_lock = threading.Lock()
CHUNK = 1 << 18  # bytes


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


@router.get("/model", response_class=StreamingResponse, responses={200: {"content": {"application/zip": {}}}})
async def download(service: Served) -> StreamingResponse:
    """Return the model folder as a zip file; unpacked, ``metarep predict`` and ``metarep serve`` open it."""
    name = model_name(service)
    file = await run_in_threadpool(pack, service.folder, name)
    return _attachment(file, f"{name}.zip", "application/zip")


@router.get(
    "/model.onnx",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/octet-stream": {}}}, 501: {"model": Refusal}},
)
async def export(service: Served) -> StreamingResponse:
    """Return the model as one ONNX graph, for programs without metarep. The export takes some seconds."""
    classes = len((await service.model()).gallery.names)
    if classes < 2:
        raise HTTPException(409, "a model needs two classes before it can be exported; add another class first")
    file = await service.exporter.onnx()
    return _attachment(file, f"{model_name(service)}.onnx", "application/octet-stream")


@router.get("/health")
async def health(service: Served) -> dict[str, str]:
    """Return ``{"status": "ok"}`` if the model can be read and the thread that encodes images is running."""
    if not service.batcher.alive:
        raise HTTPException(503, "the thread that encodes images has ended; restart the server")
    await service.model()
    return {"status": "ok", "version": __version__}


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(service: Served) -> PlainTextResponse:
    """Return counters, times and sizes in Prometheus's text format."""
    gallery = (await service.model()).gallery
    text = service.metrics.text(
        {
            "metarep_classes": ("classes of the model", len(gallery.names)),
            "metarep_images": ("images of the model", len(gallery)),
        }
    )
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


def model_name(service: Service) -> str:
    """Return the name of the model, which is the last part of its folder's path."""
    return shown_name(service.folder.name, 0)


def _attachment(file: IO[bytes], name: str, media_type: str) -> StreamingResponse:
    """Return a response that downloads an open file under this name, and closes it at the end."""
    headers = {"content-disposition": f"attachment; filename*=UTF-8''{quote(name)}"}
    return StreamingResponse(_chunks(file), media_type=media_type, headers=headers)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK):
            yield chunk
