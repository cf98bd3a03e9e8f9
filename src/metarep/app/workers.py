"""Workers: several processes that serve one model folder; uvicorn starts them and replaces those that die."""

import signal
import sys
from pathlib import Path
from socket import socket

from prometheus_client.multiprocess import mark_process_dead
from uvicorn import Config
from uvicorn.supervisors import Multiprocess

from metarep.app.worker import CANNOT_START


class Workers(Multiprocess):
    """Runs workers, and replaces those that die, until a signal ends all of them.

    Args:
        config: the configuration of uvicorn, whose application is a :class:`Worker`.
        listening: the socket that all workers accept connections from.
        shared: the folder that the workers share.
    """

    def __init__(self, config: Config, listening: socket, shared: Path) -> None:
        super().__init__(config, [listening])
        self.shared, self.ended_by = shared, 0
        self._known: set[int | None] = set()

    def keep_subprocess_alive(self) -> None:
        """Start a worker for each that has died, and take the memory of the dead out of the metrics."""
        super().keep_subprocess_alive()
        now = {process.pid for process in self.processes}
        for pid in self._known - now:
            mark_process_dead(pid, str(self.shared))
            print(f"metarep: worker {pid} has died; another one has been started", file=sys.stderr)
        self._known = now

    @property
    def failed(self) -> bool:
        """Whether a worker could not start, which has ended all."""
        return any(process.exitcode == CANNOT_START for process in self.processes)

    def handle_int(self) -> None:
        """End all workers."""
        self._end(signal.SIGINT)

    def handle_term(self) -> None:
        """End all workers."""
        self._end(signal.SIGTERM)

    def handle_hup(self) -> None:
        """End all workers, as a closed terminal ends other programs."""
        self._end(signal.SIGHUP)

    def handle_quit(self) -> None:
        """End all workers."""
        self._end(signal.SIGQUIT)

    def _end(self, number: int) -> None:
        self.ended_by = number
        self.should_exit.set()
