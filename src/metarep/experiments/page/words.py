"""Words: numbers, lists and shapes of tasks as text for the page."""

from collections.abc import Sequence
from typing import Any

SMALL = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def word(number: int) -> str:
    """A number as text, and as a word up to twelve.

    >>> word(5), word(24)
    ('five', '24')
    """
    return SMALL[number] if 0 <= number < len(SMALL) else f"{number:,}"


def count(number: int, noun: str) -> str:
    """A number as text with its noun, which is in the plural unless the number is 1.

    >>> count(1, "task"), count(3, "task")
    ('one task', 'three tasks')
    """
    return f"{word(number)} {noun}{'' if number == 1 else 's'}"


def listed(items: Sequence[str], most: int = 100) -> str:
    """Join items with commas and "and"; of those after the first ``most`` only the number is given.

    >>> listed(["Latin", "Greek"]), listed(["Latin", "Greek", "Lao", "Lisu"], 2)
    ('Latin and Greek', 'Latin, Greek and two more')
    """
    shown = list(items[:most])
    if len(items) > most:
        shown.append(f"{word(len(items) - most)} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def percent(row: dict[str, Any]) -> str:
    """The accuracy of a row with its interval, with spaces at which no line is broken.

    >>> percent({"accuracy": 98.26, "ci95": 0.31}).replace("\u00a0", " ")
    '98.3 ± 0.3 %'
    """
    return f"{row['accuracy']:.1f}\u00a0±\u00a0{row['ci95']:.1f}\u00a0%"


def shape_name(ways: int, shots: int) -> str:
    """The name of a shape of tasks.

    >>> shape_name(5, 1)
    '5-way 1-shot'
    """
    return f"{ways}-way {shots}-shot"


def duration(seconds: float) -> str:
    """A duration in seconds as text, in seconds or in minutes.

    >>> duration(24.2), duration(200.0)
    ('24 seconds', 'three minutes')
    """
    return count(max(1, round(seconds)), "second") if seconds < 100 else count(round(seconds / 60), "minute")


def validated(accuracy: float | None) -> str:
    """The validation accuracy as text.

    Args:
        accuracy: in percent; None for a training without validation.

    >>> validated(91.25), validated(None)
    ('91.2 %', 'none')
    """
    return "none" if accuracy is None else f"{accuracy:.1f} %"
