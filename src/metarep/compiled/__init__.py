"""The parts that are written in C: what torch has no operation for that does the work in one pass.

``hatch_build.py`` builds them into one library where a C compiler is at hand when the package is installed. It needs no
Python header, so any Python can load it. Whoever uses it has another way where :func:`library` is None.
"""

import ctypes
import functools
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from metarep.workers import run_tasks

Out = TypeVar("Out")


@functools.cache
def library() -> ctypes.CDLL | None:
    """What was built, or None where nothing was or it cannot be loaded."""
    try:
        return ctypes.CDLL(str(Path(__file__).with_name("compiled.so")))
    except OSError:
        return None


def call(name: str, tensors: tuple[Tensor, ...], n: int, *rest: int | float) -> None:
    """Call a C function with the addresses of ``tensors``, which must be contiguous in the order it expects.

    Raises:
        MemoryError: it asked for memory and there was none.
    """
    assert all(tensor.is_contiguous() for tensor in tensors), name
    places = (ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors)
    numbers = (ctypes.c_float(one) if isinstance(one, float) else ctypes.c_int(one) for one in rest)
    if getattr(library(), name)(*places, ctypes.c_int64(n), *numbers):
        raise MemoryError(f"{name}: no memory for a batch of {n}")


def in_parts(work: Callable[[int, int], Out], n: int, parts: int) -> list[Out]:
    """``work(start, stop)`` for parts of ``n`` images, at most one a processor thread of torch, all at once."""
    parts = max(1, min(parts, n, torch.get_num_threads()))
    cuts = [n * i // parts for i in range(parts + 1)]
    return run_tasks(lambda _, ends: work(*ends), pairwise(cuts), parts)
