"""Several workers of one server: each answers for all of them, and undoes what another changed."""

import asyncio
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from serving import ENCODER, counts, drawings, refused, served, server, teach, workers_of


@pytest.fixture
def pair(folder: Any, tmp_path: Path) -> Iterator[tuple[Any, Any]]:
    """Clients of two servers of one folder, which share what workers share."""
    from metarep.model.folder import ModelFolder

    (shared := tmp_path / "shared").mkdir()
    with ExitStack() as stack:
        opened = [ModelFolder.open(folder.path) for _ in range(2)]
        yield tuple(stack.enter_context(served(each, shared=shared)) for each in opened)


@pytest.mark.slow
def test_one_worker_knows_and_undoes_what_another_changed(pair: tuple[Any, Any]) -> None:
    one, other = pair
    teach(one, "ring", 0, 1)
    teach(other, "cross", 0, 1)
    assert counts(one) == counts(other) == {"ring": 2, "cross": 2}
    answer = other.post("/predict", files=drawings("files", "ring", 7)).json()["answers"][0]
    assert answer["label"] == "ring"
    picture = one.get("/images/0").content
    removal = one.delete("/classes", params={"name": "ring"}).headers["metarep-undo"]
    move = other.patch("/images/2", json={"to": "comb"}).headers["metarep-undo"]
    assert counts(one) == counts(other) == {"cross": 1, "comb": 1}
    assert other.post("/undo", params={"change": removal}).status_code == 204
    assert one.post("/undo", params={"change": move}).status_code == 204
    assert counts(one) == counts(other) == {"ring": 2, "cross": 2}
    assert one.get("/images/0").content == picture
    for client in pair:
        refused(client.post("/undo", params={"change": removal}), 404, "can no longer be undone")


@pytest.mark.slow
def test_the_last_changes_of_all_workers_are_kept(pair: tuple[Any, Any]) -> None:
    teach(pair[0], "ring", 0, 1)
    numbers = [pair[i % 2].patch("/images/0", json={"to": f"c{i}"}).headers["metarep-undo"] for i in range(22)]
    refused(pair[0].post("/undo", params={"change": numbers[1]}), 404)
    assert pair[0].post("/undo", params={"change": numbers[2]}).status_code == 204
    assert pair[1].post("/undo", params={"change": numbers[21]}).status_code == 204


@pytest.mark.slow
def test_one_worker_exports_at_a_time(folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from metarep.app import exporter

    running, most = [0], [0]

    async def run(self: Any, *arguments: str) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        await asyncio.sleep(0.05)
        Path(arguments[-1]).touch()
        running[0] -= 1

    async def export() -> None:
        several = [exporter.Exporter(folder, tmp_path) for _ in range(2)]
        for file in await asyncio.gather(*(each.onnx() for each in (*several, *several))):
            file.close()

    monkeypatch.setattr(exporter, "find_spec", lambda name: name)
    monkeypatch.setattr(exporter.Exporter, "_run", run)
    asyncio.run(export())
    assert most == [1]


def test_a_worker_that_cannot_start_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with the status at which the supervisor ends too, instead of starting it again and again."""
    import prometheus_client  # noqa: F401 - before the variable is set, which is for worker processes

    from metarep.app.worker import CANNOT_START, Worker

    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        Worker(tmp_path / "gone", {}, "secret token of 24 bytes", None, 1, tmp_path)()
    assert caught.value.code == CANNOT_START
    assert "gone is not a model folder" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before
    assert "secret" not in repr(Worker(tmp_path, {}, "secret", None, 1, tmp_path))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="it finds the workers in /proc")
def test_two_workers_are_one_server(tmp_path: Path) -> None:
    """They sum their metrics, a killed one is replaced, and SIGTERM ends all of them."""
    with server(tmp_path / "letters", "--encoder", ENCODER, "--workers", "2") as (process, address):
        with httpx2.Client(base_url=address, timeout=120) as client:
            teach(client, "ring", 0)
        while len(running := workers_of(process)) < 2:
            time.sleep(0.1)
        os.kill(running[0], signal.SIGKILL)
        until(lambda: len(set(workers_of(process)) - {running[0]}) == 2)
        until(lambda: metric(address, "metarep_workers") == 2)
        assert metric(address, "metarep_images") == 1
        assert metric(address, "metarep_learned_total") == 1, "what the dead one counted is kept"
        for _ in range(8):
            httpx2.get(f"{address}/classes", timeout=120)
        assert metric(address, r'metarep_requests_total\{method="GET",route="/classes",status="200"\}') == 8
        left = workers_of(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM
        assert not [pid for pid in left if Path(f"/proc/{pid}").exists()]


def until(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def metric(address: str, name: str) -> float:
    """Return the value of a metric, from any worker."""
    match = re.search(rf"(?m)^{name} (\S+)$", httpx2.get(f"{address}/metrics", timeout=120).text)
    assert match, name
    return float(match[1])
