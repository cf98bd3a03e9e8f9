"""The application: routes, what guards them, and how errors are told."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

from metarep.app import about, asking, teaching
from metarep.app.guard import Guard
from metarep.app.limits import Limits, TooMuchError
from metarep.app.schemas import Refusal
from metarep.app.service import Service
from metarep.data.class_names import BadNameError
from metarep.errors import Advised, DataError, MetarepError, NotHereError, TooLargeError
from metarep.machine.version import __version__
from metarep.model.folder import ModelFolder

PAGE = files("metarep") / "app" / "page"
STATUS: dict[type[Exception], int] = {
    NotHereError: 404,
    TooMuchError: 413,
    TooLargeError: 413,
    DataError: 422,
    BadNameError: 422,
    MetarepError: 503,  # the rest is trouble with the folder: damaged, full, or not to be written
    OSError: 503,
}


def create_app(
    folder: ModelFolder,
    *,
    limits: Limits | None = None,
    token: str | None = None,
    hosts: frozenset[str] | None = None,
) -> FastAPI:
    """The server of a model folder, as an ASGI application.

    Args:
        folder: the model; others may write to it at the same time.
        limits: see :class:`metarep.app.limits.Limits`.
        token, hosts: see :class:`metarep.app.guard.Guard`.
    """
    service = Service(folder, limits or Limits())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:  # noqa: ARG001 - the framework's
        service.start()
        yield
        service.stop()

    app = FastAPI(
        title="metarep",
        version=__version__,
        summary="A few-shot classifier of one's own images",
        lifespan=lifespan,
        docs_url=None,  # these two would fetch scripts from elsewhere
        redoc_url=None,
        responses={code: {"model": Refusal} for code in (401, 403, 404, 408, 409, 413, 422, 429)},
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.service = service
    for part in (asking, teaching, about):
        app.include_router(part.router)
    app.mount("/page", StaticFiles(directory=str(PAGE)), name="page")
    app.add_api_route("/", _page, include_in_schema=False)
    for kind, status in STATUS.items():
        app.add_exception_handler(kind, _telling(status, folder.path))
    app.add_exception_handler(RequestValidationError, _tell_shape)
    app.add_middleware(Guard, limits=service.limits, metrics=service.metrics, token=token, hosts=hosts)
    return app


async def _page() -> FileResponse:
    return FileResponse(str(PAGE / "index.html"), headers={"cache-control": "no-cache"})


def _telling(status: int, place: Path) -> Any:  # noqa: ANN401 - the framework's type of handlers
    async def tell(_: Request, error: Exception) -> JSONResponse:
        content = {"detail": f"the model folder: {error.strerror}" if isinstance(error, OSError) else str(error)}
        if isinstance(error, Advised):
            content = {"detail": error.message}
            if advice := [each.text for each in error.advice if not each.parts]:  # a request has no options to give
                content["advice"] = ", or ".join(advice)
        return JSONResponse({name: short(text) for name, text in content.items()}, status)

    def short(text: str) -> str:
        text = text.replace(f"{place}{os.sep}", "").replace(str(place), "the model")  # nobody needs to know where
        return " ".join(text.split())

    return tell


async def _tell_shape(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(each) for each in first["loc"] if each not in ("body", "query", "path"))
    return JSONResponse({"detail": f"{place or 'the request'}: {first['msg']}"}, 422)
