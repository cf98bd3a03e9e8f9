"""Silence what Pillow warns of while pictures are read, in any number of threads."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_IGNORED = r"(PIL|pillow_heif)(\.|\Z)"
_FILTER = ("ignore", None, Warning, re.compile(_IGNORED), 0)  # as filterwarnings writes it
_lock = Lock()
_readers = 0  # how many contexts are open, in all threads


@contextmanager
def hushed() -> Iterator[None]:
    """A context in which Pillow's warnings of odd metadata and large headers are not shown.

    ``warnings.catch_warnings`` would not do here. At its end it restores all filters of the process, and so it undoes
    what other threads have set, or what the caller of a generator has set since. This context adds one filter, which
    concerns Pillow alone, and takes it away when the last reader has finished.

    >>> with hushed():
    ...     warnings.warn_explicit("odd metadata", UserWarning, "TiffImagePlugin.py", 1, "PIL.TiffImagePlugin")
    """
    global _readers
    with _lock:
        _readers += 1
        if _FILTER not in warnings.filters:  # also when another part of the program has just restored older filters
            warnings.filterwarnings("ignore", module=_IGNORED)
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if not _readers and _FILTER in warnings.filters:
                warnings.filters.remove(_FILTER)  # type: ignore[attr-defined] # a list, whatever its declared type says
