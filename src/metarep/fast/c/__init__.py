"""Calls the functions that are written in C: work for which torch has no operation that does it in one pass.

``hatch_build.py`` builds them into one library where a C compiler is at hand when the package is installed. It needs no
Python header, so any Python can load it. Every caller has another way where :func:`library` returns None.
"""

import ctypes
import functools
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from metarep.machine.threads import run_tasks

Out = TypeVar("Out")


@functools.cache
def library() -> ctypes.CDLL | None:
    """Returns the built library; None where none was built or it cannot be loaded."""
    try:
        return ctypes.CDLL(str(Path(__file__).with_name("compiled.so")))
    except OSError:
        return None


def call(name: str, arrays: tuple[Tensor | np.ndarray, ...], n: int, *rest: int | float) -> None:
    """Call a C function with the addresses of ``arrays``, which must lie contiguously and in its order.

    Raises:
        MemoryError: it asked for memory and there was none.
    """
    if ask(name, arrays, n, *rest):
        raise MemoryError(f"{name}: no memory for a batch of {n}")


def ask(name: str, arrays: tuple[Tensor | np.ndarray, ...], n: int, *rest: int | float) -> int:
    """As :func:`call`, but returns what the C function returns."""
    addresses = [_address(array) for array in arrays]
    return _function(name, len(arrays), tuple(isinstance(one, float) for one in rest))(*addresses, n, *rest)


def _address(array: Tensor | np.ndarray) -> int:
    if isinstance(array, np.ndarray):
        assert array.flags.c_contiguous
        return array.__array_interface__["data"][0]  # a third of the time of array.ctypes.data
    assert array.is_contiguous()
    return array.data_ptr()


@functools.cache
def _function(name: str, arrays: int, floats: tuple[bool, ...]) -> Callable[..., int]:
    """Returns a C function with its argument types set.

    To set them on every call would cost more than many of these functions take to run.
    """
    function = library()[name]  # type: ignore[index]  # indexing makes a new object, whose argtypes are ours alone
    numbers = [ctypes.c_float if one else ctypes.c_int for one in floats]
    function.argtypes = [ctypes.c_void_p] * arrays + [ctypes.c_int64, *numbers]
    return function


def in_parts(work: Callable[[int, int], Out], n: int, parts: int) -> list[Out]:
    """``work(start, stop)`` for parts of ``n`` images, at most one a processor thread of torch, all at once."""
    parts = max(1, min(parts, n, torch.get_num_threads()))
    cuts = [n * i // parts for i in range(parts + 1)]
    return run_tasks(lambda _, ends: work(*ends), pairwise(cuts), parts)
