"""Calls of the functions that are written in C, for work that torch cannot do in one pass.

``hatch_build.py`` builds them into a library for each kind of processor if there is a C compiler when the package is
installed. The libraries need no Python header, so any version of Python can load them. If :func:`library` returns None,
callers run slower code.
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
BY_CPU = {"AVX512": "compiled-avx512.so", "AVX2": "compiled-avx2.so"}  # by what torch finds this processor to be


@functools.cache
def library() -> ctypes.CDLL | None:
    """Returns the library for this processor, or else the one for any; None if none was built or can be loaded."""
    for name in (BY_CPU.get(torch.backends.cpu.get_cpu_capability()), "compiled.so"):
        try:
            if name:
                return ctypes.CDLL(str(Path(__file__).with_name(name)))
        except OSError:
            continue
    return None


def call(name: str, arrays: tuple[Tensor | np.ndarray, ...], n: int, *rest: int | float) -> None:
    """Calls a C function.

    Args:
        name: name of the function.
        arrays: contiguous arrays, whose addresses are its first arguments.
        n: size of the batch, its next argument.
        rest: its other arguments; ints and floats.

    Raises:
        MemoryError: the function could not allocate memory.
    """
    if call_for_result(name, arrays, n, *rest):
        raise MemoryError(f"{name} could not allocate memory for a batch of {n}; take a smaller batch")


def call_for_result(name: str, arrays: tuple[Tensor | np.ndarray, ...], n: int, *rest: int | float) -> int:
    """As :func:`call`, but returns the integer that the C function returns."""
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

    Setting them on every call would cost more than many of these functions take to run.
    """
    function = library()[name]  # type: ignore[index]  # indexing makes a new object, whose argtypes are ours alone
    numbers = [ctypes.c_float if one else ctypes.c_int for one in floats]
    function.argtypes = [ctypes.c_void_p] * arrays + [ctypes.c_int64, *numbers]
    return function


def in_parts(work: Callable[[int, int], Out], n: int, parts: int) -> list[Out]:
    """Runs ``work(start, stop)`` for parts of ``n`` images on threads, and returns the results in order.

    There are at most ``parts`` parts, and at most as many as torch has threads.
    """
    parts = max(1, min(parts, n, torch.get_num_threads()))
    cuts = [n * i // parts for i in range(parts + 1)]
    return run_tasks(lambda _, ends: work(*ends), pairwise(cuts), parts)
