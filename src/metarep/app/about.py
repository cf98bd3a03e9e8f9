"""Routes about any model and the server: downloads, health and metrics."""

from collections.abc import Iterator
from typing import IO
from urllib.parse import quote

from fastapi import APIRouter, HTTPException
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from metarep.app.archive import pack
from metarep.app.limits import shown_name
from metarep.app.schemas import Refusal
from metarep.app.service import Served, Service
from metarep.machine.version import __version__
from metarep.model.multi_label.model import MultiLabelModel

router = APIRouter(tags=["about"])
CHUNK = 1 << 18  # bytes


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
    model = await service.model()
    if not isinstance(model, MultiLabelModel) and len(model.gallery.names) < 2:
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
    model = await service.model()
    several = isinstance(model, MultiLabelModel)
    names, images = (model.names, len(model.rows)) if several else (model.gallery.names, len(model.gallery))
    kind = "labels" if several else "classes"
    text = service.metrics.text(
        {f"metarep_{kind}": (f"{kind} of the model", len(names)), "metarep_images": ("images of the model", images)}
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
