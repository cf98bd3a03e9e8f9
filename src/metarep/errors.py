"""Error classes and messages. A message says what was given, what is wrong with it, and what to do."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any


class Slot(str):
    """A placeholder in an advice that the reader fills in, such as ``RUN``. It is written without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class Call:
    """A step in an advice, which has one name in Python and another on the command line.

    Args:
        python: the function or method, such as ``ModelFolder.create``.
        command: the command, such as ``fit``.
        arguments: arguments of the command, in order; a :class:`Slot` is filled in by the reader.
        options: options of the command.
    """

    def __init__(self, python: str, command: str, *arguments: object, **options: object) -> None:
        self.python, self.command, self.arguments, self.options = python, command, arguments, options


class Advice:
    """One way to solve a problem: a sentence with options of the library and calls in it.

    Options have their names in Python. ``str`` writes them as Python does; with :meth:`worded` the command line writes
    them as flags.

    Args:
        text: the sentence without a full stop, with ``{name}`` for each option or call.
        parts: for each ``{name}`` the value of the option, ``...`` for its name without a value, or a :class:`Call`.

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
        """The sentence with all options and calls written out.

        Args:
            word: a function that writes an option or a call, from its name and its value.

        >>> Advice("use {skip_bad}", skip_bad=True).worded(lambda name, value: "--" + name.replace("_", "-"))
        'use --skip-bad'
        """
        parts = {name: word(name, value) for name, value in self.parts.items()}
        return self.text.format_map(parts) if parts else self.text  # without parts, because a path may contain braces


def _in_python(name: str, value: Any) -> str:  # noqa: ANN401 - the value of any option
    if isinstance(value, Call):
        return value.python
    return name if value is ... else f"{name}={value!r}"


class Advised(Exception):
    """An exception with a message and advice. ``str`` gives both, with options written as in Python.

    Args:
        message: what was given, and what is wrong with it.
        advice: what to do; one sentence, or several of which any one helps.

    Attributes:
        message: the message without the advice.
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
        """The message and the advice in one line.

        Args:
            word: see :meth:`Advice.worded`.
        """
        return "; ".join(filter(None, (self.message, ", or ".join(each.worded(word) for each in self.advice))))


class MetarepError(Advised, ValueError):
    """An argument or a file of the user cannot be used. The command line prints it in one line, without a traceback."""


class DataError(MetarepError):
    """An image, a class, an archive or a data set cannot be used. The message names it."""


class TooLargeError(DataError):
    """An image or a file has more pixels or bytes than the limit."""


class NotHereError(MetarepError):
    """The model does not have this class or image."""


class LeakageError(MetarepError):
    """An evaluation would use classes that the representation was trained on."""


def unknown(kind: str, given: str, known: Iterable[str]) -> MetarepError:
    """The error for an unknown name. It suggests the closest known name and lists all of them.

    Args:
        kind: what the name is of, such as ``method``.
        given: the unknown name.
        known: the known names.

    >>> print(unknown("method", "protnet", ["protonet", "siamese"]))
    unknown method 'protnet'; did you mean 'protonet'? Known: protonet, siamese
    """
    names = sorted(known)
    import difflib  # here, because it takes longer to import than all of --help

    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return MetarepError(f"unknown {kind} {given!r}{hint} Known: {', '.join(names)}")


def refuse_unknown_settings(name: str, function: Callable[..., object], given: Iterable[str]) -> None:
    """Raise if a setting is not a keyword-only parameter of a function.

    Args:
        name: the name of the function, for the message.
        function: the function or class that takes the settings.
        given: the names of the settings.

    Raises:
        MetarepError: the first unknown setting, with the closest known one.
    """
    import inspect  # as above

    parameters = inspect.signature(function).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    for setting in given:
        if setting not in known:
            raise unknown(f"setting of {name}", setting, known)


def one_of(what: str, given: str, known: Iterable[str]) -> None:
    """Raise if the value of a setting is not one of the known values.

    Args:
        what: the name of the setting.
        given: its value.
        known: the known values.

    Raises:
        MetarepError: the value is unknown; the message lists the known ones.
    """
    if given not in known:
        raise MetarepError(f"{what} {given!r} is not one of {', '.join(known)}")


def above(what: str, given: float, least: float = 0.0) -> None:
    """Raise unless a setting is a finite number above ``least``.

    Args:
        what: the name of the setting.
        given: its value.
        least: the bound, which is not allowed itself.

    Raises:
        MetarepError: the value is not above the bound, or is NaN or infinite.
    """
    if not least < given < math.inf:
        raise MetarepError(f"{what} must be a number above {least:g}, not {given:g}")


def missing_extra(what: str, package: str, extra: str, why: str = "", *, advice: str | Advice = "") -> MetarepError:
    """The error for an optional package that is not installed, or does not work.

    Args:
        what: the feature that needs the package.
        package: name of the package.
        extra: the extra of metarep that installs it.
        why: what is wrong with the installed package; empty if there is none.
        advice: what to do instead of installing it.

    >>> print(missing_extra("serving", "fastapi", "serve"))
    serving needs fastapi: pip install 'metarep[serve]'
    """
    reason = f" ({why})" if why else ""
    text = f"{what} needs {package}{reason}: pip install 'metarep[{extra}]'"
    return MetarepError(text, advice=advice or ())


def one_line(error: BaseException, most: int = 200) -> str:
    r"""The message of another library's error in one line; some quote what is damaged, over many lines or without end.

    Args:
        error: the error.
        most: the largest number of characters.

    >>> one_line(ValueError("no\nnumber"))
    'no number'
    """
    return " ".join(str(error).split())[:most] or type(error).__name__


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
