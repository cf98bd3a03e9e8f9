"""What checks the annotations of metarep while the tests run: beartype, with an int accepted for a float.

A check takes as long as many a small function. So each test checks the first calls of a function, and lets the others
pass: a training calls the same functions a thousand times, with the same shapes.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

CALLS = 3  # of each function in each test that are checked

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
_every_call = jaxtyping.jaxtyped
_test = 0


def next_test() -> None:
    """Starts to count calls again."""
    global _test
    _test += 1


def first_calls(function: Any = None, **settings: Any) -> Any:
    """Decorates a function as ``jaxtyping.jaxtyped`` does, for its first calls in each test.

    What checks the function is made at its first call, because making it takes milliseconds.
    """
    if function is None:
        return functools.partial(first_calls, **settings)
    if not inspect.isfunction(function):
        return _every_call(function, **settings)
    checked: Callable[..., Any] | None = None
    counted, calls = -1, 0

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        nonlocal checked, counted, calls
        if counted != _test:
            counted, calls = _test, 0
        calls += 1
        if calls > CALLS:
            return function(*args, **named)
        checked = checked or _every_call(function, **settings)
        return checked(*args, **named)

    return call


jaxtyping.jaxtyped = first_calls  # the import hook of jaxtyping decorates every function of metarep with it
