"""Makes flags from typed signatures; their help texts come from docstrings."""

import argparse
import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

METAVARS = {"int": "N", "float": "X", "str": "NAME"}


def add_flags(
    parser: argparse.ArgumentParser,
    title: str,
    source: Callable[..., Any],
    *,
    skip: Iterable[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> list[str]:
    """Add a flag for each keyword-only parameter of a function or class, or for each field of a dataclass.

    A flag that the user does not give sets no attribute, so that a recipe can tell it from one that is given.

    Args:
        parser: the parser that gets the flags.
        title: the heading of the flags in help.
        source: the function, class or dataclass.
        skip: names that get no flag here.
        defaults: defaults to show instead of those of ``source``.

    Returns:
        The names of the parameters or fields that have a flag now.
    """
    group = parser.add_argument_group(title)
    helps = argument_helps(source.__doc__ or "")
    fields = {name: field for name, field in fields_of(source).items() if name not in skip}
    for name, (kind, default) in fields.items():
        text = helps.get(name, "").replace("%", "%%")
        text += f" (default: {_shown((defaults or {}).get(name, default))})"
        group.add_argument(_flag(name), dest=name, help=text, default=argparse.SUPPRESS, **_reading(kind))
    return list(fields)


def argument_helps(docstring: str) -> dict[str, str]:
    r"""Read the description of each argument from the ``Args:`` section of a docstring; ``a, b: text`` describes both.

    >>> argument_helps("Scale.\n\nArgs:\n    width, height: in ``pixels``.")
    {'width': 'in pixels.', 'height': 'in pixels.'}
    """
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


def fields_of(source: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """The type and the default of each field of a dataclass, or each keyword-only parameter of a class or function."""
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
    return "none" if default in (None, "") else f"{default:g}" if isinstance(default, float) else str(default)


def _reading(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - a type hint
    """The options of ``add_argument`` for a value of this type."""
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if typing.get_origin(kind) is Literal:
        return {"choices": typing.get_args(kind)}
    if isinstance(kind, types.UnionType):
        inner = next(arg for arg in typing.get_args(kind) if arg is not type(None))
        return {"type": _or_none(inner), "metavar": METAVARS[inner.__name__]}
    return {"type": kind, "metavar": METAVARS[kind.__name__]}


def _or_none(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:  # noqa: ANN401
        return None if text == "none" else kind(text)

    read.__name__ = getattr(kind, "__name__", "value")
    return read
