"""Workers: several tasks at once, each on one processor thread.

A task has few images; cut among threads, its layers are too small to gain. Whole tasks on threads of their own do.
A process that is forked makes threads of its own; what torch does on several threads by itself hangs there (see
``docs/serving.md``).
"""

import functools
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

In = TypeVar("In")
Out = TypeVar("Out")


def run_tasks(work: Callable[[int, In], Out], items: Iterable[In], workers: int) -> list[Out]:
    """``work(worker, item)`` for every item, in order; worker ``i`` takes items ``i, i + workers, ...``, one at a time.

    Whatever belongs to a worker (its replica of the network) is never used by two threads.
    """
    queue = list(items)
    workers = min(workers, len(queue))
    if workers <= 1:
        return [work(0, item) for item in queue]

    def share(worker: int) -> list[Out]:
        return [work(worker, item) for item in queue[worker::workers]]

    parts = list(_pool(workers).map(share, range(workers)))
    return [parts[i % workers][i // workers] for i in range(len(queue))]


@functools.cache
def _pool(workers: int) -> ThreadPoolExecutor:
    """Threads that each compute with one thread of their own; the caller's number stays what it was."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, "metarep-task", initializer=_compute_alone)
    met = threading.Barrier(workers)  # all threads start now, so that none changes the number of threads later
    list(pool.map(lambda _: met.wait(), range(workers)))
    torch.set_num_threads(before)
    return pool


if hasattr(os, "register_at_fork"):  # a forked process has the pool and none of its threads: it would wait for ever
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _compute_alone() -> None:
    """One thread for what this thread computes. Asked for first, or torch would set it anew at the first operation."""
    torch.get_num_threads()
    torch.set_num_threads(1)
