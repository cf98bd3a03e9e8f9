"""Errors that a person can act on: they quote what was given and say what would have worked."""

import difflib
import inspect
import math
from collections.abc import Callable, Iterable


class MetarepError(ValueError):
    """Something the user gave cannot be used. The command line prints it as one line, without a traceback."""


class DataError(MetarepError):
    """An image, class, archive or data set cannot be used; the message names it and says what to do."""


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


def missing_extra(what: str, package: str, extra: str, why: str = "") -> MetarepError:
    """The error for an optional package that is not there, or does not work.

    >>> print(missing_extra("serving", "fastapi", "serve"))
    serving needs fastapi: pip install 'metarep[serve]'
    """
    reason = f" ({why})" if why else ""
    return MetarepError(f"{what} needs {package}{reason}: pip install 'metarep[{extra}]'")
