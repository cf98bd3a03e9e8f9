"""Wording of messages: a number with its noun, in the singular or plural."""


def counted(number: int, noun: str, many: str = "") -> str:
    """Write a number with its noun, in the plural unless the number is 1.

    Args:
        number: the number of things.
        noun: the singular.
        many: the plural, where it is irregular. By default it ends in s, and in es after a noun in s, x, ch or sh.

    >>> counted(1, "class"), counted(2, "class"), counted(1200, "image"), counted(0, "query", "queries")
    ('1 class', '2 classes', '1,200 images', '0 queries')
    """
    return f"{number:,} {plural(number, noun, many)}"


def plural(number: int, noun: str, many: str = "") -> str:
    """The noun alone, in the form that :func:`counted` gives it.

    Args:
        number, noun, many: see :func:`counted`.

    >>> plural(1, "batch"), plural(2, "batch")
    ('batch', 'batches')
    """
    return noun if number == 1 else many or (f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s")
