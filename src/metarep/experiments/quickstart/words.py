"""Words: how the page says numbers, lists and shapes of tasks."""

from collections.abc import Sequence
from typing import Any

SMALL = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def word(number: int) -> str:
    """Small numbers as words.

    >>> word(5), word(24)
    ('five', '24')
    """
    return SMALL[number] if 0 <= number < len(SMALL) else f"{number:,}"


def count(number: int, noun: str) -> str:
    """A number with its noun, in the plural where it must be.

    >>> count(1, "task"), count(3, "task")
    ('one task', 'three tasks')
    """
    return f"{word(number)} {noun}{'' if number == 1 else 's'}"


def listed(items: Sequence[str], most: int = 100) -> str:
    """Items as a sentence lists them; beyond ``most`` only their number.

    >>> listed(["Latin", "Greek"]), listed(["Latin", "Greek", "Lao", "Lisu"], 2)
    ('Latin and Greek', 'Latin, Greek and two more')
    """
    shown = list(items[:most])
    if len(items) > most:
        shown.append(f"{word(len(items) - most)} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def percent(row: dict[str, Any]) -> str:
    """The accuracy of a result row with its interval; no break inside."""
    return f"{row['accuracy']:.1f}\u00a0±\u00a0{row['ci95']:.1f}\u00a0%"


def shape_name(ways: int, shots: int) -> str:
    """``5-way 1-shot``."""
    return f"{ways}-way {shots}-shot"


def duration(seconds: float) -> str:
    """A time as people say it.

    >>> duration(24.2), duration(200.0)
    ('24 seconds', 'three minutes')
    """
    return count(max(1, round(seconds)), "second") if seconds < 100 else count(round(seconds / 60), "minute")


def validated(accuracy: float | None) -> str:
    """An accuracy in validation, in percent; a training without validation has none."""
    return "none" if accuracy is None else f"{accuracy:.1f} %"
