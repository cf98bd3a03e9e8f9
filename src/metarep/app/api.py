"""The application: routes, the middleware that protects them, and how errors become responses."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from metarep.app import about, asking, labelling, overview, suggesting, teaching
from metarep.app.guard import Guard
from metarep.app.limits import Limits, TooMuchError
from metarep.app.paths import without_path
from metarep.app.schemas import Refusal
from metarep.app.service import Service
from metarep.app.teaching_service import TeachingService
from metarep.app.wording import of_a_field, of_a_request
from metarep.data.class_names import BadNameError
from metarep.errors import Advised, DataError, MetarepError, NotHereError, TooLargeError
from metarep.experiments.page.pages import render
from metarep.machine.version import __version__
from metarep.model.folder import ModelFolder
from metarep.model.multi_label.folder import MultiLabelFolder

PAGE = files("metarep") / "app" / "page"
STATUS: dict[type[Exception], int] = {
    NotHereError: 404,
    TooMuchError: 413,
    TooLargeError: 413,
    DataError: 422,
    BadNameError: 422,
    MetarepError: 503,  # everything else is a fault of the folder: damaged, full, or read-only
    OSError: 503,
}


def create_app(
    folder: ModelFolder | MultiLabelFolder,
    *,
    limits: Limits | None = None,
    token: str | None = None,
    hosts: frozenset[str] | None = None,
    shared: Path | None = None,
) -> FastAPI:
    """Return the server of a model folder as an ASGI application.

    Args:
        folder: the model folder; other processes may write to it at the same time. A model of several labels an image
            is asked; it is not changed by requests.
        limits: how much a request may bring, and how large the model may grow; None takes the defaults of
            :class:`metarep.app.limits.Limits`.
        token: the token that every request must bring as ``Authorization: Bearer TOKEN``; None if no token is needed.
        hosts: the names that the ``Host`` header may have, without the port; None allows any name. See
            :class:`metarep.app.guard.Guard`.
        shared: a folder that all processes of one server share, for changes that can be undone and for metrics; None if
            the server is one process. See :class:`metarep.app.workers.Worker`.

    >>> from tempfile import TemporaryDirectory
    >>> from metarep.model.model import Model
    >>> from metarep.weights.named import load_representation
    >>> with TemporaryDirectory() as directory:
    ...     folder = ModelFolder.create(Path(directory) / "moths", Model(load_representation("omniglot-protonet")))
    ...     app = create_app(folder)
    >>> sorted(app.openapi()["paths"])[:3]
    ['/classes', '/classes/images', '/health']
    """
    routers, limits = [part.router for part in (asking, suggesting, teaching, overview)], limits or Limits()
    if isinstance(folder, MultiLabelFolder):
        service, start = Service(folder, limits, shared), "labels.html"
        routers = [labelling.router, labelling.refusing(routers)]
    else:
        service, start = TeachingService(folder, limits, shared), "index.html"

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:  # noqa: ARG001 - the framework passes it
        service.start()
        yield
        service.stop()

    app = FastAPI(
        title="metarep",
        version=__version__,
        summary="A few-shot classifier of your own images",
        lifespan=lifespan,
        docs_url=None,  # these two pages would load scripts from another server
        redoc_url=None,
        responses={code: {"model": Refusal} for code in (401, 403, 404, 408, 409, 413, 422, 429)},
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.service = service
    for router in (*routers, about.router):
        app.include_router(router)
    app.mount("/page", StaticFiles(directory=str(PAGE)), name="page")
    app.add_api_route("/", _page(start), include_in_schema=False)
    for error, status in STATUS.items():
        app.add_exception_handler(error, _refuse_with(status, folder.path))
    app.add_exception_handler(RequestValidationError, _refuse_malformed)
    app.add_exception_handler(HTTPException, _refuse)
    app.add_middleware(Guard, limits=service.limits, metrics=service.metrics, token=token, hosts=hosts)
    return app


def _page(name: str) -> Any:  # noqa: ANN401 - the framework's type of routes
    """Return the route of a page."""

    async def page() -> HTMLResponse:
        return HTMLResponse(render(name, "metarep.app", served=True), headers={"cache-control": "no-cache"})

    return page


def _refuse_with(status: int, folder: Path) -> Any:  # noqa: ANN401 - the framework's type of handlers
    """Return an exception handler that responds with this status, the error's message and its advice."""

    async def refuse(_: Request, error: Exception) -> JSONResponse:
        content = {"detail": f"the model folder: {error.strerror}" if isinstance(error, OSError) else str(error)}
        if isinstance(error, Advised):
            content = {"detail": error.message}
            if advice := [each.text for each in error.advice if not each.parts]:  # a request has no options to give
                content["advice"] = ", or ".join(advice)
        return JSONResponse({name: without_path(text, folder) for name, text in content.items()}, status)

    return refuse


async def _refuse_malformed(_: Request, error: Exception) -> JSONResponse:
    """Respond to a request of the wrong form with the first field that is wrong, and what is wrong with it."""
    assert isinstance(error, RequestValidationError)
    detail, advice = of_a_field(error.errors()[0])
    return JSONResponse({"detail": detail, "advice": advice}, 422)


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    """Respond to an HTTP error. An error of the framework gets a message of this library; that of a route is kept."""
    assert isinstance(error, HTTPException)
    content = {"detail": str(error.detail)}
    if error.status_code in (400, 404, 405):  # of the framework: no route of this server responds with these
        detail, advice = of_a_request(error.status_code, content["detail"], request.method, request.url.path)
        content = {"detail": detail, "advice": advice}
    return JSONResponse(content, error.status_code, headers=error.headers)
