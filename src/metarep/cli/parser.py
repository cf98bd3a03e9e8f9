"""The parser: flags from typed signatures, help from docstrings, errors of one line with the nearest name."""

import argparse
import dataclasses
import difflib
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NoReturn

from metarep.errors import MetarepError


class Parser(argparse.ArgumentParser):
    """An argument parser that never abbreviates and whose errors are ours."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - argparse's own
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401 - argparse's own
        for arg in args or ():
            if re.fullmatch("--?[a-z][a-z-]*=--", arg):  # argparse drops the `--`, and gives a list for the value
                self.error(f"{arg.removesuffix('=--')} needs a value, not --")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        choice = re.match(
            r"argument (?P<flag>[^:]+): invalid choice: '(?P<given>[^']*)' \(choose from (?P<known>.*)\)", message
        )
        if choice:
            known = [name.strip(" '") for name in choice["known"].split(",")]
            hint = nearest(choice["given"], known)
            message = f"{choice['flag']}: {choice['given']!r} is not one of {', '.join(known)}{hint}"
        raise MetarepError(f"{message}. Try: {self.prog} --help")

    def refuse_unknown(self, rest: list[str]) -> None:
        """Raise for the arguments that no flag took."""
        flags = [arg for arg in rest if arg.startswith("-")]
        if flags:
            given = flags[0].partition("=")[0]
            raise MetarepError(
                f"there is no flag {given}{nearest(given, self._option_string_actions)}. Try: {self.prog} --help"
            )
        if rest:
            raise MetarepError(f"{rest[0]!r} is one argument too many. Try: {self.prog} --help")


def nearest(given: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


def add_flags(
    parser: argparse.ArgumentParser,
    title: str,
    source: Callable[..., Any],
    *,
    skip: Iterable[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> list[str]:
    """A flag for each keyword-only parameter of ``source``, or each field of a dataclass; returns their names.

    Names in ``skip`` get none: they have one elsewhere. ``defaults`` are shown instead of those of ``source``. A flag
    that is not given leaves no attribute behind, so that a recipe knows what the user said.
    """
    group = parser.add_argument_group(title)
    helps = argument_helps(source.__doc__ or "")
    fields = {name: field for name, field in _fields(source).items() if name not in skip}
    for name, (kind, default) in fields.items():
        text = helps.get(name, "").replace("%", "%%")
        text += f" (default: {_shown((defaults or {}).get(name, default))})"
        group.add_argument(_flag(name), dest=name, help=text, default=argparse.SUPPRESS, **_reading(kind))
    return list(fields)


def argument_helps(docstring: str) -> dict[str, str]:
    """What the ``Args:`` section of a docstring says of each argument; ``a, b: text`` speaks of both."""
    section = re.search(r"Args:\n(.*?)(?:\n\s*\n|\Z)", inspect.cleandoc(docstring), re.DOTALL)
    helps: dict[str, str] = {}
    names: list[str] = []
    for line in section[1].splitlines() if section else []:
        start = re.match(r"    (\w[\w, ]*): (.*)", line)
        if start:
            names = [name.strip() for name in start[1].split(",")]
            helps |= dict.fromkeys(names, start[2].strip())
        else:
            helps |= {name: f"{helps[name]} {line.strip()}" for name in names}
    return {name: text.replace("``", "") for name, text in helps.items()}


def _fields(source: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    if dataclasses.is_dataclass(source):
        hints = typing.get_type_hints(source)
        return {field.name: (hints[field.name], field.default) for field in dataclasses.fields(source)}
    function = source.__init__ if inspect.isclass(source) else source
    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    return {p.name: (hints[p.name], p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _shown(default: Any) -> str:  # noqa: ANN401 - any default
    return "none" if default is None else f"{default:g}" if isinstance(default, float) else str(default)


def _reading(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - a type hint
    """How argparse reads a value of this type."""
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if typing.get_origin(kind) is Literal:
        return {"choices": typing.get_args(kind)}
    if isinstance(kind, types.UnionType):
        inner = next(arg for arg in typing.get_args(kind) if arg is not type(None))
        return {"type": _or_none(inner), "metavar": inner.__name__.upper()}
    return {"type": kind, "metavar": {"int": "N", "float": "X", "str": "NAME"}[kind.__name__]}


def _or_none(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:  # noqa: ANN401
        return None if text == "none" else kind(text)

    read.__name__ = getattr(kind, "__name__", "value")
    return read
