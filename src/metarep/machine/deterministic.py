"""Deterministic arithmetic: the same bits for any number of threads, and on a GPU from run to run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_threads: ContextVar[int | None] = ContextVar("threads of tasks", default=None)


@contextmanager
def deterministic(active: bool, device: torch.device) -> Iterator[None]:
    """A context in which results do not depend on the number of CPU threads.

    An operation of torch that several threads share adds up its parts in an order that depends on their number. So
    here each operation runs on one thread. Tasks are still computed at the same time, each on a thread of its own,
    because their sums are taken in the order of the tasks. On a CUDA device only deterministic kernels are used.

    Args:
        active: whether to do this; otherwise the context does nothing.
        device: the device that computes.

    Raises:
        RuntimeError: on a CUDA device, an operation has no deterministic kernel. torch names it.

    >>> with deterministic(True, torch.device("cpu")):
    ...     torch.get_num_threads()
    1
    """
    if not active or _threads.get() is not None:
        yield
        return
    threads, kernels = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    tuned, warns = torch.backends.cudnn.benchmark, torch.is_deterministic_algorithms_warn_only_enabled()
    token = _threads.set(threads)
    try:
        torch.set_num_threads(1)
        if device.type == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is computed
            torch.use_deterministic_algorithms(True)
            torch.backends.cudnn.benchmark = False
        yield
    finally:
        _threads.reset(token)
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = tuned
        torch.use_deterministic_algorithms(kernels, warn_only=warns)


def task_threads() -> int:
    """The number of threads on which tasks are computed at the same time: torch's, as it was before the context."""
    return _threads.get() or torch.get_num_threads()
