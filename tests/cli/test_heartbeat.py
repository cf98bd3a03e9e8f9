"""The heartbeat of the processes of one command: who is missed."""

import io
import os
import threading
import time

import pytest

from metarep.cli import heartbeat


class Store(dict[str, bytes]):
    """A key-value store in memory, with the methods of torch's."""

    def set(self, key: str, value: str) -> None:
        self[key] = value.encode()

    def check(self, keys: list[str]) -> bool:
        return all(key in self for key in keys)


def killed(monkeypatch: pytest.MonkeyPatch, other: bytes | None, seconds: float) -> tuple[bool, str]:
    """Whether the first of two processes ended itself in this time, and what it said; ``other`` is in the store."""
    ended, said = threading.Event(), io.StringIO()
    monkeypatch.setattr(heartbeat, "EVERY", 0.1)
    monkeypatch.setattr(os, "kill", lambda *_: ended.set())
    store = Store() if other is None else Store({"beat/1": other})
    beats = heartbeat.Heartbeat(store, 0, 2, said, patience=0.3)
    beats.start()
    result = ended.wait(seconds)
    beats.stop()
    return result, said.getvalue()


def test_a_process_that_has_stopped_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, said = killed(monkeypatch, b"7", 10)
    assert ended
    assert "no sign of life from process 1" in said


@pytest.mark.parametrize("other", [None, b"done"])
def test_a_process_that_has_not_begun_or_is_done_is_not_missed(
    monkeypatch: pytest.MonkeyPatch, other: bytes | None
) -> None:
    assert killed(monkeypatch, other, 1.5) == (False, "")


def test_a_process_is_heard_before_it_works() -> None:
    store = Store()
    beats = heartbeat.Heartbeat(store, 0, 2, io.StringIO())
    beats.start()
    began = time.monotonic()
    while "beat/0" not in store and time.monotonic() - began < heartbeat.EVERY:
        time.sleep(0.01)
    beats.stop()
    assert time.monotonic() - began < heartbeat.EVERY / 2


def test_a_process_does_not_end_in_a_call_of_the_store() -> None:
    """Python aborts a process whose thread is in C++ then."""
    inside, left = threading.Event(), threading.Event()

    class Slow(Store):
        def check(self, keys: list[str]) -> bool:
            inside.set()
            time.sleep(0.3)
            left.set()
            return super().check(keys)

    store = Slow()
    beats = heartbeat.Heartbeat(store, 0, 2, io.StringIO())
    beats.start()
    assert inside.wait(5)
    beats.stop()
    assert left.is_set()
    assert not beats.is_alive()
    assert store["beat/0"] == b"done", "it is the last word"
