"""Old names of arguments: they are accepted for one version, with a DeprecationWarning."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def renamed_argument(old: str, new: str) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Make a decorator that accepts a keyword argument by its old name too, with a DeprecationWarning.

    Args:
        old, new: the old and the new name of the argument.

    >>> @renamed_argument("places", "paths")
    ... def count(paths):
    ...     return len(paths)
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     count(places=["a", "b"])
    2
    >>> print(caught[0].message)
    the argument places of count is now called paths; the old name goes with the next version
    """

    def decorate(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @functools.wraps(function)
        def accepting(*args: Any, **kwargs: Any) -> Result:  # noqa: ANN401 - the arguments of any function
            if old in kwargs:
                warnings.warn(
                    f"the argument {old} of {function.__name__} is now called {new}; the old name goes with the next "
                    "version",
                    DeprecationWarning,
                    stacklevel=2,
                )
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return accepting

    return decorate
