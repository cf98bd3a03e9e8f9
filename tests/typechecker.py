"""What checks the annotations of metarep while the tests run: beartype, with an int accepted for a float.

A check takes as long as many a small function. So each test checks the first calls of a function, and lets the others
pass: a training calls the same functions a thousand times, with the same shapes.
"""

import functools
import inspect
from collections.abc import Callable
from types import CodeType
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

CALLS = 2  # of each function in each test that are checked

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
_every_call = jaxtyping.jaxtyped
_test = 0
_counted: dict[CodeType, list[int]] = {}  # of each function: the test, and its calls in it


def next_test() -> None:
    """Starts to count calls again."""
    global _test
    _test += 1


def first_calls(function: Any = None, **settings: Any) -> Any:
    """Decorates a function as ``jaxtyping.jaxtyped`` does, for its first calls in each test.

    What checks the function is made at its first call, because making it takes milliseconds. A function in a function
    is made again and again, so it is checked at the first calls of all tests together.
    """
    if function is None:
        return functools.partial(first_calls, **settings)
    if not inspect.isfunction(function):
        return _every_call(function, **settings)
    checked: Callable[..., Any] | None = None
    inner = "<locals>" in function.__qualname__
    counted = _counted.setdefault(function.__code__, [-1, 0])

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        nonlocal checked
        if counted[0] != _test and not inner:
            counted[:] = _test, 0
        if counted[1] >= CALLS:
            return function(*args, **named)
        counted[1] += 1
        checked = checked or _every_call(function, **settings)
        return checked(*args, **named)

    return call


jaxtyping.jaxtyped = first_calls  # the import hook of jaxtyping decorates every function of metarep with it
