"""Cases of a test of which ``make check`` runs the first few, and ``make test`` all."""

from collections.abc import Iterable
from typing import Any

import pytest


def few(cases: Iterable[Any], fast: int) -> list[Any]:
    """The cases, one value each; all but the first ``fast`` are marked as slow.

    >>> [getattr(case, "marks", ()) == () for case in few("abc", 2)]
    [True, True, False]
    """
    cases = list(cases)
    return [*cases[:fast], *(pytest.param(case, marks=pytest.mark.slow) for case in cases[fast:])]
