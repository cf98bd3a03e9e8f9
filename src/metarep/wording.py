"""Wording: numbers with their nouns, as every message says them."""


def counted(number: int, noun: str, many: str = "") -> str:
    """A number with its noun, in the plural where it must be.

    Args:
        number: of things.
        noun: what one of them is called.
        many: what several are called, where it is not the noun with an s or, after a hissing sound, es.

    >>> counted(1, "class"), counted(2, "class"), counted(1200, "image"), counted(0, "query", "queries")
    ('1 class', '2 classes', '1,200 images', '0 queries')
    """
    return f"{number:,} {plural(number, noun, many)}"


def plural(number: int, noun: str, many: str = "") -> str:
    """The noun alone, as :func:`counted` says it.

    >>> plural(1, "batch"), plural(2, "batch")
    ('batch', 'batches')
    """
    return noun if number == 1 else many or (f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s")
