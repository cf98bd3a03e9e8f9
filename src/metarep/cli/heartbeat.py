"""Heartbeat: a thread by which the processes of one command notice that another one, or the network, is gone.

If a process dies, its connections close, and the others get an error at once. If its machine is cut off, they would
wait for it until the time-out of torch.
"""

import itertools
import os
import signal
import threading
import time
from typing import Any

EVERY, PATIENCE = 3.0, 45.0  # seconds between two signs of life, and without one
LONGEST = 30.0  # seconds that an exchange may still take when a process ends


class Heartbeat(threading.Thread):
    """Writes a sign of life to a key-value store, and ends this process if another one has given none for long.

    Args:
        store: a client of the store that no other thread uses.
        rank, total: the number of this process, and of all.
        error: what the message is written to. The store cannot say whether another process has written it, because it
            may be what is cut off.
        patience: seconds without a sign of life.
    """

    def __init__(
        self,
        store: Any,  # noqa: ANN401 - torch is imported only where there are several processes
        rank: int,
        total: int,
        error: Any,  # noqa: ANN401 - sys.stderr, or what takes its place
        patience: float = PATIENCE,
    ) -> None:
        super().__init__(name="metarep-heartbeat", daemon=True)
        self.store, self.rank, self.total, self.error, self.patience = store, rank, total, error, patience
        self.stopped = threading.Event()
        self.seen = dict.fromkeys(range(total), (b"", time.monotonic()))
        self.last_exchange = time.monotonic()

    def run(self) -> None:
        threading.Thread(target=self._watch, name="metarep-heartbeat-watch", daemon=True).start()
        for beat in itertools.count():  # the first at once, because only who was heard is missed
            try:
                self._exchange(str(beat))
            except Exception:
                pass
            if self.stopped.wait(EVERY):
                return

    def stop(self) -> None:
        """Tell the others that this process is done, and stop watching them.

        It waits for a call of the store that is under way. Python aborts a process that ends while a thread is in one.
        """
        self.stopped.set()
        self.join(LONGEST)
        if self.is_alive():
            return
        try:
            self.store.set(f"beat/{self.rank}", "done")
        except Exception:
            return

    def _exchange(self, beat: str) -> None:
        self.store.set(f"beat/{self.rank}", beat)
        for other in range(self.total):
            key = f"beat/{other}"
            value = self.store.get(key) if self.store.check([key]) else b""
            if value != self.seen[other][0] or value in (b"", b"done"):  # an empty one has not begun yet
                self.seen[other] = value, time.monotonic()
        self.last_exchange = time.monotonic()

    def _watch(self) -> None:
        """Ends the process in time, also while a call of the store hangs."""
        while not self.stopped.wait(1.0):
            now = time.monotonic()
            silent = [other for other, (_, then) in self.seen.items() if now - then > self.patience]
            if now - self.last_exchange > self.patience or silent:
                what = f"process {silent[0]}" if silent and len(silent) < self.total else "the other processes"
                text = f"metarep: no sign of life from {what} for {self.patience:.0f} s; this process ends"
                print(text, file=self.error, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)  # the main thread waits in C++ and answers to nothing else
