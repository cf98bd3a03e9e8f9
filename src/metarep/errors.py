"""Errors that a person can act on: they quote what was given and say what to do, in the terms of whoever reads it."""

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any


class Slot(str):
    """A value that the reader fills in, such as ``RUN``; it is written without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class Call:
    """A step that has a name in Python and a name on the command line.

    Args:
        python: the function or method, such as ``ModelFolder.create``.
        command: the command.
        arguments: of the command, in order; a :class:`Slot` is one that the reader fills in.
        options: of the command.
    """

    def __init__(self, python: str, command: str, *arguments: object, **options: object) -> None:
        self.python, self.command, self.arguments, self.options = python, command, arguments, options


class Advice:
    """One way to get further: a sentence in which ``{name}`` stands for an option of the library, or for a call.

    It names options as Python does. ``str`` words it for Python; :meth:`worded` for anything else, as the command line
    does for its flags.

    Args:
        text: the sentence, without a full stop.
        parts: the value of each ``{name}``; ``...`` where the option is meant and no value, a :class:`Call` for a step.

    >>> print(Advice("leave such files out with {skip_bad}", skip_bad=True))
    leave such files out with skip_bad=True
    >>> print(Advice("try a smaller {lr}, or start from {init}", lr=..., init=Slot("RUN")))
    try a smaller lr, or start from init=RUN
    """

    def __init__(self, text: str, **parts: object) -> None:
        self.text, self.parts = text, parts

    def __str__(self) -> str:
        return self.worded(_in_python)

    def worded(self, word: Callable[[str, Any], str]) -> str:
        """The sentence, in which ``word(name, value)`` says how each part is written."""
        parts = {name: word(name, value) for name, value in self.parts.items()}
        return self.text.format_map(parts) if parts else self.text  # which may hold braces of a path


def _in_python(name: str, value: Any) -> str:  # noqa: ANN401 - the value of any option
    if isinstance(value, Call):
        return value.python
    return name if value is ... else f"{name}={value!r}"


class Advised(Exception):
    """A message, and beside it what to do; ``str`` has both, as Python words them.

    Args:
        message: what was given, and what is wrong with it.
        advice: what to do, in a sentence or several, of which any one helps.

    Attributes:
        message: without the advice.
        advice: a tuple of :class:`Advice`.

    >>> print(MetarepError("a.png is damaged", advice=["replace it", Advice("use {skip_bad}", skip_bad=True)]))
    a.png is damaged; replace it, or use skip_bad=True
    """

    def __init__(self, message: str = "", *, advice: str | Advice | Sequence[str | Advice] = ()) -> None:
        super().__init__(message)
        several = [advice] if isinstance(advice, str | Advice) else advice
        self.message = message
        self.advice = tuple(each if isinstance(each, Advice) else Advice(each) for each in several)

    def __str__(self) -> str:
        return self.worded(_in_python)

    def worded(self, word: Callable[[str, Any], str]) -> str:
        """Message and advice in one line; see :meth:`Advice.worded`."""
        return "; ".join(filter(None, (self.message, ", or ".join(each.worded(word) for each in self.advice))))


class MetarepError(Advised, ValueError):
    """Something the user gave cannot be used. The command line prints it as one line, without a traceback."""


class DataError(MetarepError):
    """An image, class, archive or data set cannot be used; the message names it and says what to do."""


class TooLargeError(DataError):
    """An image or a file has more pixels or bytes than are read."""


class NotHereError(MetarepError):
    """A class or an image that the model does not have."""


class LeakageError(MetarepError):
    """An evaluation would use classes that the representation was trained on."""


def unknown(kind: str, given: str, known: Iterable[str]) -> MetarepError:
    """The error for a name that is not on a list: it quotes the name, offers the nearest one and prints the list.

    >>> print(unknown("method", "protnet", ["protonet", "siamese"]))
    unknown method 'protnet'; did you mean 'protonet'? Known: protonet, siamese
    """
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return MetarepError(f"unknown {kind} {given!r}{hint} Known: {', '.join(names)}")


def refuse_unknown_settings(name: str, function: Callable[..., object], given: Iterable[str]) -> None:
    """Raise for the first of ``given`` that is no keyword-only parameter of ``function``, called ``name``."""
    parameters = inspect.signature(function).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    for setting in given:
        if setting not in known:
            raise unknown(f"setting of {name}", setting, known)


def one_of(what: str, given: str, known: Iterable[str]) -> None:
    """Raise if a setting's value is not on its list; it is never taken for the default."""
    if given not in known:
        raise MetarepError(f"{what} {given!r} is not one of {', '.join(known)}")


def above(what: str, given: float, least: float = 0.0) -> None:
    """Raise unless a setting is a finite number above ``least``."""
    if not least < given < math.inf:
        raise MetarepError(f"{what} must be a number above {least:g}, not {given:g}")


def missing_extra(what: str, package: str, extra: str, why: str = "", *, advice: str | Advice = "") -> MetarepError:
    """The error for an optional package that is not there, or does not work.

    Args:
        what: what needs it.
        package: its name.
        extra: of metarep, that installs it.
        why: what is wrong with the one that is there.
        advice: what to do instead of installing it.

    >>> print(missing_extra("serving", "fastapi", "serve"))
    serving needs fastapi: pip install 'metarep[serve]'
    """
    reason = f" ({why})" if why else ""
    text = f"{what} needs {package}{reason}: pip install 'metarep[{extra}]'"
    return MetarepError(text, advice=advice or ())


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
