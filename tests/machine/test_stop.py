"""Stop: a signal waits until work is saved, and then ends the process as usual."""

import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from metarep.machine import stop as module
from metarep.machine.stop import Stop


@pytest.fixture(autouse=True)
def handlers_are_restored() -> Iterator[None]:
    before = [signal.getsignal(number) for number in module.SIGNALS]
    yield
    assert [signal.getsignal(number) for number in module.SIGNALS] == before


def ending(work: Callable[[Stop], object]) -> BaseException:
    """The exception with which the work ends, in the context of a Stop."""
    with pytest.raises((SystemExit, KeyboardInterrupt)) as ended:
        _inside(work)
    return ended.value


def _inside(work: Callable[[Stop], object]) -> None:
    with Stop() as stop:
        work(stop)


def test_sigterm_waits_and_then_ends_with_143(caplog: pytest.LogCaptureFixture) -> None:
    def work(stop: Stop) -> None:
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested
        stop.end("step 3 is saved")

    ended = ending(work)
    assert isinstance(ended, SystemExit)
    assert ended.code == 143
    assert caplog.messages == ["metarep: SIGTERM: step 3 is saved"]


def test_work_that_can_be_done_again_is_left_at_once() -> None:
    def work(stop: Stop) -> None:
        assert stop.unless_requested(lambda: 3) == 3
        assert stop.unless_requested(lambda: (signal.raise_signal(signal.SIGINT), pytest.fail("not left"))) is None
        assert stop.unless_requested(lambda: pytest.fail("begun")) is None
        stop.end("saved")

    assert repr(ending(work)) == "KeyboardInterrupt('SIGINT: saved')"


def test_a_signal_that_nobody_took_up_ends_the_context() -> None:
    assert isinstance(ending(lambda _: signal.raise_signal(signal.SIGINT)), KeyboardInterrupt)


def test_a_second_signal_ends_at_once_unless_it_comes_with_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(_: Stop) -> None:
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
        monkeypatch.setattr(module, "ONE", 0.0)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second signal was not obeyed")

    assert repr(ending(work)) == "KeyboardInterrupt()"


def test_a_handler_of_the_program_is_called_and_may_let_the_work_go_on() -> None:
    calls: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: calls.append(number))
    try:
        with Stop() as stop:
            for _ in range(2):
                signal.raise_signal(signal.SIGTERM)
                assert stop.requested
                stop.end("saved")
                assert not stop.requested
    finally:
        signal.signal(signal.SIGTERM, before)
    assert calls == [signal.SIGTERM, signal.SIGTERM]


def test_signals_that_are_ignored_stay_ignored_and_other_threads_take_none() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as by nohup, or for a job in the background
    try:
        with Stop() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGINT, before)

    def work() -> None:
        with Stop():
            handlers.append(signal.getsignal(signal.SIGINT))

    handlers: list[object] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    with Stop(active=False):
        handlers.append(signal.getsignal(signal.SIGINT))
    assert handlers == [before, before]
