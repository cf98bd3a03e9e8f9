"""Workers: several tasks at the same time, each on one CPU thread.

A task has few images, so its layers are too small to be split over threads. It is faster to run whole tasks on threads
of their own. A forked process starts its own pool of threads here; torch's own multi-threaded operations hang in a
forked process (see ``docs/serving.md``).
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
    """Call ``work(worker, item)`` for every item, on several threads.

    Worker ``i`` takes the items ``i, i + workers, ...``, one at a time. So what belongs to a worker, such as a copy of
    the network, is never used by two threads.

    Args:
        work: the function; its first argument is the number of the worker.
        items: the second arguments.
        workers: number of threads.

    Returns:
        The result of each item, in the order of the items.

    >>> run_tasks(lambda worker, item: item * 10, [1, 2, 3], 2)
    [10, 20, 30]
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
    """A pool of threads in each of which torch uses one thread; the caller's number of torch threads is unchanged."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, "metarep-task", initializer=_compute_alone)
    started = threading.Barrier(workers)  # all threads start now, so that none changes the number of threads later
    list(pool.map(lambda _: started.wait(), range(workers)))
    torch.set_num_threads(before)
    return pool


if hasattr(os, "register_at_fork"):  # a forked process has the pool but not its threads, so it would wait forever
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _compute_alone() -> None:
    """Let torch use one thread for the operations of this thread."""
    torch.get_num_threads()  # reading it first stops torch from setting it again at the first operation
    torch.set_num_threads(1)
