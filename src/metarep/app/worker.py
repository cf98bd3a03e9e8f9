"""Worker: makes the application in each process of a server that has several."""

import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import warnings
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metarep.app.metrics import Metrics

CANNOT_START = 3  # uvicorn ends the server, instead of starting the worker again and again
BEAT = 1.0  # seconds
GRACE = 15.0  # seconds that a worker has to end after its supervisor has gone


@dataclass(frozen=True)
class Worker:
    """Makes the application in a worker process. It is sent there through a pipe, so other users do not see the token.

    Args:
        path: the model folder.
        limits: the values of :class:`metarep.app.limits.Limits`, by name.
        token, hosts: see :func:`metarep.app.api.create_app`.
        threads: CPU threads on which this worker encodes images.
        shared: an empty folder that all workers of the server share, and nobody else.
    """

    path: Path
    limits: dict[str, Any]
    token: str | None = field(repr=False)
    hosts: frozenset[str] | None
    threads: int
    shared: Path

    def __call__(self) -> Any:  # noqa: ANN401 - FastAPI, which imports torch
        """Return the application; uvicorn calls it once in each worker."""
        # Importing takes seconds. Until then nothing has to be shut down in order, so a signal ends the worker at once.
        handlers = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            return self._application()
        except Exception as error:
            print(f"metarep: a worker cannot start: {error}", file=sys.stderr)
            raise SystemExit(CANNOT_START) from None
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _application(self) -> Any:  # noqa: ANN401 - FastAPI
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(self.shared)  # prometheus_client reads it when it is imported
        import torch

        from metarep.app.api import create_app
        from metarep.app.limits import Limits
        from metarep.model.any_folder import open_folder

        folder, limits = open_folder(self.path), Limits(**self.limits)
        torch.set_num_threads(self.threads)
        warnings.filterwarnings("ignore", module="PIL")  # warnings about unusual files
        app = create_app(folder, limits=limits, token=self.token, hosts=self.hosts, shared=self.shared)
        threading.Thread(target=self._live, args=(app.state.service.metrics,), name="beat", daemon=True).start()
        return app

    def _live(self, metrics: "Metrics") -> None:
        """Write the memory of this worker every second. If the supervisor is killed, end the worker too."""
        supervisor = multiprocessing.parent_process()
        if supervisor is None:
            return
        while not wait([supervisor.sentinel], BEAT):
            metrics.beat()
        shutil.rmtree(self.shared, ignore_errors=True)  # as the supervisor would have done
        signal.raise_signal(signal.SIGTERM)
        time.sleep(GRACE)
        os.kill(os.getpid(), 9)  # SIGKILL, in case it does not respond; on Windows any number ends a process
