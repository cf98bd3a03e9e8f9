"""Two workers of one server: what one learns the other answers with, and nothing is lost when workers are killed."""

import http.client
import json
import os
import random
import signal
import statistics
import subprocess
import threading
import time
from pathlib import Path

import pytest
from serving import ENCODER, KINDS, server, workers_of
from writing import Writer, labels_in, refuse_losses

pytest.importorskip("fastapi", reason="the server needs fastapi: pip install 'metarep[serve]'")
pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="it finds the workers in /proc"),
]

ROUNDS = 6
WRITERS = 4
WRITES = 120
WORKERS = ("--encoder", ENCODER, "--workers", "2")


def test_the_other_worker_answers_within_a_second(tmp_path: Path) -> None:
    """One client is connected to each worker. What one writes, the other reads; the next time the other way round."""
    delays: list[float] = []
    with server(tmp_path / "letters", *WORKERS) as (process, address):
        clients = one_for_each_worker(process, address)
        for number in range(WRITES):
            writer, reader = clients if number % 2 else reversed(clients)
            turn = number if number % 4 else number + 3  # adds, and every fourth moves or forgets
            writer.write(turn)
            acknowledged = time.perf_counter()
            expected = clients[0].held | clients[1].held
            while labels_of(reader) != expected:
                assert time.perf_counter() < acknowledged + 1
            delays.append(time.perf_counter() - acknowledged)
        for client in clients:
            client.link.close()
    assert labels_in(tmp_path / "letters") == expected
    print(
        f"{WRITES} writes, read by the other worker after {1e3 * statistics.median(delays):.0f} ms (median), "
        f"{1e3 * max(delays):.0f} ms (most)"
    )


def one_for_each_worker(process: "subprocess.Popen[str]", address: str) -> list[Writer]:
    """Return two writers, each connected to another worker: the other one is stopped while it connects."""
    deadline = time.monotonic() + 120
    while metric_of(address, "metarep_workers") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    clients = []
    for number, other in enumerate(workers_of(process)):
        os.kill(other, signal.SIGSTOP)
        try:
            clients.append(Writer(address, number, {}, 1000 * number))
            clients[-1].ask("GET", "/health")
        finally:
            os.kill(other, signal.SIGCONT)
    assert len(clients) == 2
    return clients


def labels_of(client: Writer) -> dict[int, str]:
    classes = json.loads(client.ask("GET", "/classes"))["classes"]
    return {number: each["name"] for each in classes for number in each["ids"]}


def metric_of(address: str, name: str) -> float:
    link = http.client.HTTPConnection(address.removeprefix("http://"), timeout=120)
    link.request("GET", "/metrics")
    lines = link.getresponse().read().decode().splitlines()
    link.close()
    return float(next((line.split()[1] for line in lines if line.startswith(f"{name} ")), 0))


def test_nothing_acknowledged_is_lost_when_workers_are_killed(tmp_path: Path) -> None:
    """Writers go on while one worker after the other is killed, and sometimes both."""
    dice, stop, killed = random.Random(0), threading.Event(), 0
    with server(tmp_path / "letters", *WORKERS) as (process, address):
        writers = [Writer(address, number, {}, 10_000 * number, stop) for number in range(WRITERS)]
        for writer in writers:
            writer.start()
        for turn in range(ROUNDS):
            until = time.monotonic() + 120
            while metric_of(address, "metarep_workers") < 2:
                assert time.monotonic() < until
                time.sleep(0.2)
            time.sleep(1 + 2 * dice.random())
            running = workers_of(process)
            for pid in running if turn % 3 == 2 else [dice.choice(running)]:
                os.kill(pid, signal.SIGKILL)
                killed += 1
        time.sleep(2)
        stop.set()
        for writer in writers:
            writer.join(120)
            assert not writer.is_alive()
        last = workers_of(process)
        process.kill()  # and the supervisor: its workers end too
        until = time.monotonic() + 30
        while any(Path(f"/proc/{pid}").exists() for pid in last):
            assert time.monotonic() < until
            time.sleep(0.1)
    extra = refuse_losses(there := labels_in(tmp_path / "letters"), writers, "at the end")
    written, broken = sum(each.acknowledged for each in writers), sum(each.broken for each in writers)
    assert written > 20 * ROUNDS
    assert {label.split()[0] for label in there.values()} <= set(KINDS)
    print(
        f"{written} writes acknowledged, {killed} workers killed, {broken} requests broken off ({len(extra)} of them "
        f"had been done), {len(there)} images held"
    )
