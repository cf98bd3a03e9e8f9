"""The flag ``--over NAME=VALUES`` of ``metarep sweep``: reads the values of each setting."""

import typing
from collections.abc import Sequence
from types import UnionType
from typing import Any, Literal

from metarep.cli.flags import fields_of
from metarep.errors import MetarepError, unknown
from metarep.experiments.job import Job
from metarep.experiments.sweep.space import ENCODER, MEASURE, Choice, Range, Space, settable
from metarep.methods import METHODS
from metarep.weights.settings import TrainSettings

EXAMPLES = "lr=1e-4..1e-2:log, width=32,64 or turns=1..4"
TRUTH = {"true": True, "yes": True, "false": False, "no": False}


def read_space(method: str, given: Sequence[str]) -> Space:
    """Read the space of a sweep from the values of ``--over``.

    Args:
        method: the method that is trained.
        given: such as ``lr=1e-4..1e-2:log`` for a range, or ``width=32,64`` for a choice.

    Raises:
        MetarepError: a text of another form, an unknown setting, or a value of the wrong type.

    >>> read_space("protonet", ["lr=1e-4..1e-2:log", "width=32,64"])
    {'lr': Range(low=0.0001, high=0.01, log=True), 'width': Choice(values=(32, 64))}
    """
    kinds = _kinds(method)
    space: dict[str, Choice | Range] = {}
    for text in given:
        name, equals, values = text.partition("=")
        name = name.strip().removeprefix("--").replace("-", "_")
        if not equals or not values.strip():
            raise MetarepError(f"--over {text!r} is not NAME=VALUES; write {EXAMPLES}")
        if name not in kinds:
            raise unknown(f"setting of {method}", name, settable(method))
        if name in space:
            raise MetarepError(f"--over gives {name} twice; write all its values in one")
        try:
            space[name] = _read(name, values.strip(), kinds[name])
        except MetarepError as error:
            raise MetarepError(f"--over {text}: {error}") from error
    return space


def _kinds(method: str) -> dict[str, Any]:
    """The type of each setting that may be named, also of those that a sweep then refuses with a reason."""
    types = {name: kind for source in (METHODS[method], TrainSettings, Job) for name, (kind, _) in _fields(source)}
    names = {*settable(method), *MEASURE, "seed"}
    return {name: kind for name, kind in types.items() if name in names} | {ENCODER[0]: str, ENCODER[1]: int}


def _fields(source: Any) -> list[tuple[str, tuple[Any, Any]]]:  # noqa: ANN401 - a class
    return [*fields_of(source).items()]


def _read(name: str, text: str, kind: Any) -> Choice | Range:  # noqa: ANN401 - a type hint
    low, dots, rest = text.partition("..")
    if not dots:
        return Choice(tuple(_value(name, each.strip(), kind) for each in text.split(",")))
    high, colon, scale = rest.partition(":")
    if colon and scale != "log":
        raise MetarepError(f"a range ends with :log or with its upper bound, not with :{scale}")
    bounds = _value(name, low.strip(), kind), _value(name, high.strip(), kind)
    if any(isinstance(each, bool) or not isinstance(each, int | float) for each in bounds):
        raise MetarepError(f"{name} is not a number, so it has no range; write its values with commas")
    return Range(*bounds, log=bool(colon))


def _value(name: str, text: str, kind: Any) -> Any:  # noqa: ANN401 - a type hint
    if isinstance(kind, UnionType):
        if text == "none":
            return None
        kind = next(arg for arg in typing.get_args(kind) if arg is not type(None))
    if typing.get_origin(kind) is Literal:
        if text not in typing.get_args(kind):
            raise unknown(f"value of {name}", text, map(str, typing.get_args(kind)))
        return text
    if kind is bool:
        if text not in TRUTH:
            raise MetarepError(f"{name} is true or false, not {text!r}")
        return TRUTH[text]
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise MetarepError(f"{name} must be {what}, not {text!r}") from None
