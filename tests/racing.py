"""Functions that start at the same moment on several threads: for tests of locks and of atomic files."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from metarep.errors import MetarepError


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """The results of functions that start at the same moment; for a MetarepError its text."""
    start = threading.Barrier(len(works))

    def run(work: Callable[[], Any]) -> Any:
        start.wait()
        try:
            return work()
        except MetarepError as error:
            return str(error)

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))
