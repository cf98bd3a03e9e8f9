"""Stop: SIGTERM and SIGINT are noted, so that work is saved before the process ends."""

import logging
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, TypeVar

T = TypeVar("T")
SIGNALS = (signal.SIGTERM, signal.SIGINT)
ONE = 2.0  # seconds within which several signals are one request: Ctrl-C in a terminal reaches torchrun and its ranks
USUAL = (signal.SIG_DFL, signal.default_int_handler)


class _Left(BaseException):
    """Raised in the work of :meth:`Stop.unless_requested`."""


class Stop:
    """A context in which SIGTERM and SIGINT do not end the process. They are noted, and :meth:`end` ends it later.

    A second signal, two seconds later or more, ends the process at once. A signal that the process ignores stays
    ignored. Only the main thread can have handlers; in another thread, or if it is not ``active``, nothing is noted and
    signals do what they did before.

    Args:
        active: whether to note signals.

    >>> try:
    ...     with Stop() as stop:
    ...         signal.raise_signal(signal.SIGINT)
    ...         print(stop.requested)
    ...         stop.end("step 40 is saved")
    ... except KeyboardInterrupt as error:
    ...     print(error)
    True
    SIGINT: step 40 is saved
    """

    def __init__(self, *, active: bool = True) -> None:
        self.active = active
        self._signal: signal.Signals | None = None
        self._since = 0.0
        self._leaving = False
        self._before: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has come since the context was entered, or since the last :meth:`end` that returned."""
        return self._signal is not None

    def __enter__(self) -> "Stop":
        if self.active and threading.current_thread() is threading.main_thread():
            for each in SIGNALS:
                if signal.getsignal(each) not in (signal.SIG_IGN, None):  # None: a handler that is not of Python
                    self._before[each] = signal.signal(each, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        if kind is None or kind is _Left:
            self.end()

    def unless_requested(self, work: Callable[[], T]) -> T | None:
        """Do work that takes long and can be done again; leave it as soon as a signal comes.

        Args:
            work: the function that does the work.

        Returns:
            Its result; None if it was left, or not begun because a signal had come before.
        """
        self._leaving = True
        try:
            return None if self.requested else work()
        except _Left:
            return None
        finally:
            self._leaving = False

    def end(self, what: str = "", *, elsewhere: bool = False) -> None:
        """End the process as its signal would have ended it; return if no signal has come.

        If the program has a handler of its own for this signal, it is called. If that returns, so does this method.

        Args:
            what: what was saved, and how to go on, for the message.
            elsewhere: if no signal has come, another process got one: end as by SIGTERM.

        Raises:
            KeyboardInterrupt: after SIGINT, with the message.
            SystemExit: after SIGTERM, with the status 143. The message goes to the logger ``metarep``, which writes it
                to standard error unless the program says otherwise.
        """
        number, self._signal = self._signal or (signal.SIGTERM if elsewhere else None), None
        if number is None:
            return
        before = self._before.get(number)
        if before is not None and before not in USUAL:
            before(number, None)
            return
        self._restore()
        message = f"{number.name}: {what}" if what else number.name
        if number == signal.SIGINT:
            raise KeyboardInterrupt(message)
        logging.getLogger("metarep").warning("metarep: %s", message)
        raise SystemExit(128 + number)

    def _note(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if self._signal is not None and now - self._since >= ONE:
            self._restore()
            signal.raise_signal(number)
            return
        if self._signal is None:
            self._signal, self._since = signal.Signals(number), now
        if self._leaving:
            self._leaving = False
            raise _Left

    def _restore(self) -> None:
        for each, before in self._before.items():
            if signal.getsignal(each) == self._note:  # otherwise someone has set another handler meanwhile
                signal.signal(each, before)
