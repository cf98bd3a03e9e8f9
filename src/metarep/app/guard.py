"""Guard: who may ask, how much, and how many at a time; it stands before everything that the server does."""

import asyncio
import hmac
import json
import time
from collections.abc import Mapping

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from metarep.app.limits import Limits
from metarep.app.metrics import Metrics
from metarep.errors import plural

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
OPEN = ("/", "/health")  # and what lies below /page/: nothing of the model
UNCOUNTED = ("/health", "/metrics")  # a full server still says how it is
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
}


class Guard:
    """Refuses, in one line of JSON, what must not reach the model.

    A page of somebody else's that is open in the same browser may send requests here too. It cannot read the answers,
    for no CORS header allows it, but it could write, or have its own name resolve to 127.0.0.1. So ``Host`` must be a
    name of this server, and ``Origin``, where a browser sends it, must be the same as ``Host``.

    Args:
        app: what is guarded.
        limits: see :class:`metarep.app.limits.Limits`.
        metrics: where requests are counted.
        token: what ``Authorization: Bearer`` must say; None asks for nothing.
        hosts: names that ``Host`` may be, without port; None admits any.
    """

    def __init__(
        self, app: ASGIApp, *, limits: Limits, metrics: Metrics, token: str | None, hosts: frozenset[str] | None
    ) -> None:
        self.app, self.limits, self.metrics, self.token, self.hosts = app, limits, metrics, token, hosts
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = {name for name, _ in message["headers"]}
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *(pair for pair in extra if pair[0] not in own)]
            await send(message)

        counted = scope["path"] not in UNCOUNTED
        self.in_flight += counted
        try:
            if refusal := self._refuse(scope, headers, counted=counted):
                if refusal[0] == 413:
                    await self._drain(receive)
                await _answer(tell, *refusal)
            else:
                await self.app(scope, self._measured(receive), tell)
        finally:
            self.in_flight -= counted
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.count("metarep_requests_total", route=route, method=_method(scope), status=str(status))
            self.metrics.observe("metarep_request_seconds", time.perf_counter() - started, route=route)

    def _refuse(self, scope: Scope, headers: Mapping[str, str], *, counted: bool) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if self.hosts is not None and _name(host) not in self.hosts:
            return 403, f"this server is not called {host[:80]!r}; ask for http://localhost"
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return 403, "a page of another site may not ask here"
        path = scope["path"]
        if self.token is not None and path not in OPEN and not path.startswith("/page/"):
            given = headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self.token.encode()):
                return 401, "a token is needed: Authorization: Bearer TOKEN, as metarep serve --token was given"
        if counted and self.in_flight > self.limits.requests:
            most = self.limits.requests
            return 429, (f"{most} {plural(most, 'request is', 'requests are')} being answered; come again in a second")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.limits.body:
            return 413, self._too_long()
        return None

    def _too_long(self) -> str:
        return f"a request may bring at most {self.limits.megabytes} MiB; send fewer or smaller images"

    def _measured(self, receive: Receive) -> Receive:
        """The body, for as long as it is neither too long nor too slow, whatever its head said."""
        come, until, whole = 0, time.monotonic() + self.limits.patience, False

        async def measured() -> Message:
            nonlocal come, whole
            if whole:  # what is waited for now is that the client goes away
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.001, until - time.monotonic()))
            except TimeoutError:
                raise HTTPException(408, f"the request did not arrive in {self.limits.patience:g} s") from None
            come += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if come > self.limits.body:
                raise HTTPException(413, self._too_long())
            return message

        return measured

    async def _drain(self, receive: Receive) -> None:
        """Take in what is on its way and throw it away: many clients read no answer before they have sent all."""
        come, until = 0, time.monotonic() + self.limits.patience
        while come < 8 * self.limits.body and time.monotonic() < until:
            try:
                message = await asyncio.wait_for(receive(), max(0.001, until - time.monotonic()))
            except TimeoutError:
                return
            come += len(message.get("body", b""))
            if not message.get("more_body", False):
                return


async def _answer(send: Send, status: int, detail: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 429:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"detail": detail}).encode()})


def _name(host: str) -> str:
    """``Host`` without its port.

    >>> _name("localhost:8000"), _name("[::1]:8000"), _name("127.0.0.1")
    ('localhost', '::1', '127.0.0.1')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "PATCH", "DELETE") else "other"
