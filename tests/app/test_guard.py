"""The guard: tokens, hosts, other sites, and requests that are too many, too long or too slow; and the page."""

from collections.abc import Iterator
from typing import Any

import pytest
from serving import HOST, counts, refused, served


def test_the_page_loads_nothing_from_other_servers(client: Any) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert client.get("/docs").status_code == 404  # it would fetch scripts from elsewhere
    assert client.get("/page/../api.py").status_code == 404
    assert client.get("/page/%2e%2e/api.py").status_code == 404


def test_requests_need_the_token(folder: Any) -> None:
    token = "a token of some length"
    with served(folder, token=token, hosts=None) as client:
        assert client.get("/").status_code == 200
        assert client.get("/health").status_code == 200
        for wrong in (None, "", "Bearer", "Bearer a token", f"Basic {token}", token + "x"):
            headers = {"authorization": wrong} if wrong is not None else {}
            for path in ("/classes", "/summary", "/metrics", "/model", "/images/0", "/openapi.json"):
                answer = client.get(path, headers=headers)
                refused(answer, 401, "token")
                assert answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/classes", headers={"authorization": f"Bearer {token}"}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "", "[::2]"])
def test_other_host_names_are_refused(client: Any, host: str) -> None:
    refused(client.get("/classes", headers={"host": host}), 403, "localhost")


@pytest.mark.parametrize("host", ["127.0.0.1:1", "LOCALHOST", "[::1]:8000", "localhost"])
def test_loopback_names_are_accepted(client: Any, host: str) -> None:
    assert client.get("/classes", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:9", "http://localhost:8000.evil"])
def test_pages_of_other_sites_are_refused(taught: Any, origin: str) -> None:
    answer = taught.delete("/classes", params={"name": "ring"}, headers={"origin": origin})
    refused(answer, 403, "another site")
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert counts(taught) == {"ring": 2, "cross": 2}
    assert taught.get("/classes", headers={"origin": HOST}).status_code == 200


def test_too_many_concurrent_requests_get_429(taught: Any, folder: Any) -> None:
    guard = taught.app.middleware_stack
    while type(guard).__name__ != "Guard":
        guard = guard.app
    guard.in_flight = 64
    answer = taught.get("/classes")
    refused(answer, 429, "64 requests")
    assert answer.headers["retry-after"] == "1"
    assert taught.get("/health").status_code == 200, "a full server still says how it is"
    guard.in_flight = 0
    assert taught.get("/classes").status_code == 200
    assert guard.in_flight == 0


def test_a_chunked_body_over_the_limit_is_refused(folder: Any) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        for _ in range(40):
            yield bytes(1 << 16)

    with served(folder, megabytes=1) as client:
        headers = {"content-type": "multipart/form-data; boundary=x", "transfer-encoding": "chunked"}
        refused(client.post("/predict", content=chunks(), headers=headers), 413, "larger than 1 MiB")


def test_a_slow_body_gets_408() -> None:
    import asyncio

    from fastapi import HTTPException

    from metarep.app.guard import Guard
    from metarep.app.limits import Limits
    from metarep.app.metrics import Metrics

    async def never() -> Any:
        await asyncio.sleep(60)

    async def nothing(*_: Any) -> None: ...

    guard = Guard(nothing, limits=Limits(patience=0.05), metrics=Metrics(), token=None, hosts=None)
    with pytest.raises(HTTPException) as caught:
        asyncio.run(guard._limited(never)())
    assert caught.value.status_code == 408
