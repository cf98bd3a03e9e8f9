"""Guard: the middleware that checks every request before the application sees it."""

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
OPEN = ("/", "/health")  # need no token, and neither does /page/: they hold nothing of the model
UNCOUNTED = ("/health", "/metrics")  # are answered even when the server is full
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
    """ASGI middleware that refuses requests from other sites, without the token, too many, too large or too slow.

    A refusal is one line of JSON. Every response gets the security headers in ``HEADERS``.

    A page of another site that is open in the same browser may send requests here too. It cannot read the responses,
    because no CORS header allows it. But it could write, or let its own name resolve to 127.0.0.1 (DNS rebinding). So
    ``Host`` must be a name of this server, and ``Origin``, if the browser sends one, must be the same as ``Host``.

    Args:
        app: the application to protect.
        limits: see :class:`metarep.app.limits.Limits`.
        metrics: counts the requests.
        token: the token that ``Authorization: Bearer`` must bring; None if no token is needed.
        hosts: the names that ``Host`` may have, without the port; None allows any name.
    """

    def __init__(
        self, app: ASGIApp, *, limits: Limits, metrics: Metrics, token: str | None, hosts: frozenset[str] | None
    ) -> None:
        self.app, self.limits, self.metrics, self.token, self.hosts = app, limits, metrics, token, hosts
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it; requests that are not HTTP pass through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name for name, _ in message["headers"]}
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *(pair for pair in extra if pair[0] not in present)]
            await send(message)

        counted = scope["path"] not in UNCOUNTED
        self.in_flight += counted
        try:
            if refusal := self._refuse(scope, headers, counted=counted):
                if refusal[0] == 413:
                    await self._drain(receive)
                await _answer(send_with_headers, *refusal)
            else:
                await self.app(scope, self._limited(receive), send_with_headers)
        finally:
            self.in_flight -= counted
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.count("metarep_requests_total", route=route, method=_method(scope), status=str(status))
            self.metrics.observe("metarep_request_seconds", time.perf_counter() - started, route=route)

    def _refuse(self, scope: Scope, headers: Mapping[str, str], *, counted: bool) -> tuple[int, str] | None:
        """Return the status and the message of a refusal, or None if the request may pass."""
        host = headers.get("host", "")
        if self.hosts is not None and _host_name(host) not in self.hosts:
            return 403, f"the host {host[:80]!r} is not a name of this server; use http://localhost"
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return 403, f"the page at {origin[:80]!r} is of another site, which may not send requests to this server"
        path = scope["path"]
        if self.token is not None and path not in OPEN and not path.startswith("/page/"):
            given = headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self.token.encode()):
                return 401, (
                    "the request has no token, or a wrong one; "
                    "send the header 'Authorization: Bearer TOKEN' with the token of metarep serve"
                )
        if counted and self.in_flight > self.limits.requests:
            most = self.limits.requests
            return 429, (
                f"the server is busy: {most} {plural(most, 'request is', 'requests are')} being answered; "
                "send this one again in a second"
            )
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.limits.body:
            return 413, self._too_long()
        return None

    def _too_long(self) -> str:
        return f"the request is larger than {self.limits.megabytes} MiB; send fewer or smaller images"

    def _limited(self, receive: Receive) -> Receive:
        """Return ``receive`` with the limits on size and time, whatever ``content-length`` said.

        Raises:
            HTTPException: 413 if the body is too long; 408 if it takes too long to arrive.
        """
        received, deadline, complete = 0, time.monotonic() + self.limits.patience, False

        async def receive_limited() -> Message:
            nonlocal received, complete
            if complete:  # the application now waits for the client to disconnect, which has no deadline
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.001, deadline - time.monotonic()))
            except TimeoutError:
                raise HTTPException(
                    408, f"the request did not arrive within {self.limits.patience:g} s; send fewer or smaller images"
                ) from None
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > self.limits.body:
                raise HTTPException(413, self._too_long())
            return message

        return receive_limited

    async def _drain(self, receive: Receive) -> None:
        """Read and discard the rest of a body: many clients do not read a response before they have sent everything."""
        received, deadline = 0, time.monotonic() + self.limits.patience
        while received < 8 * self.limits.body and time.monotonic() < deadline:
            try:
                message = await asyncio.wait_for(receive(), max(0.001, deadline - time.monotonic()))
            except TimeoutError:
                return
            received += len(message.get("body", b""))
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


def _host_name(host: str) -> str:
    """Return the ``Host`` header without its port.

    >>> _host_name("localhost:8000"), _host_name("[::1]:8000"), _host_name("127.0.0.1")
    ('localhost', '::1', '127.0.0.1')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _method(scope: Scope) -> str:
    """Return the request's method, or ``other``, so that a client cannot create any number of metrics."""
    return scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "PATCH", "DELETE") else "other"
