"""The file of ``metarep train METHOD --config FILE``: a user's own settings, in the format of the recipes."""

import difflib
import tomllib
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from metarep.cli.flags import fields_of
from metarep.data.reading.folder_walk import missing
from metarep.encoders import ENCODERS
from metarep.encoders.vit import SIZES
from metarep.errors import MetarepError
from metarep.experiments.job import Job
from metarep.experiments.recipes import JOB
from metarep.methods import METHODS
from metarep.weights.named import is_trained_name
from metarep.weights.settings import TrainSettings

TABLES = ("encoder", "settings", "train")
LONGEST = 1 << 16  # bytes of a file; a recipe has about 2,000
MOST = (1 << 63) - 1
IGNORED = ("about", "source", "measure", "learner")  # of a recipe; a training does not read them
KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", dict: "a table"}


def read_config(path: Path, method: str) -> dict[str, Any]:
    """Read the fields of a :class:`metarep.experiments.job.Job`, except the method, from a TOML file.

    Args:
        path: the file.
        method: the method that is trained. A file is for one method if it names it (``method = "protonet"``), or if its
            own name begins with it, as in ``protonet-mine.toml``. Other files are for any method.

    Returns:
        The fields that the file sets, by name.

    Raises:
        MetarepError: the file cannot be read, is for another method, or has an unknown key or a value of the wrong
            type. The error names the file, the key, and the most similar known key.
    """
    content = _parse(path)
    wanted = content.pop("method", None)
    named = path.stem.partition("-")[0]
    if wanted is None and "-" in path.stem and named in METHODS:
        wanted, why = named, f"its name begins with {named}; name the method in it by method = {method!r}"
    else:
        why = f"it says method = {wanted!r}"
    if wanted is not None and str(wanted) not in METHODS:
        raise MetarepError(
            f"{path}: method must be one of {', '.join(METHODS)}, not {_short(wanted)}{_nearest(str(wanted), METHODS)}"
        )
    if wanted not in (None, method):
        raise MetarepError(f"{path} is not for {method}: {why}; or train it with metarep train {wanted}")
    _refuse_unknown(path, "", content, (*JOB, *IGNORED, "method"))
    job = {key: value for key, value in content.items() if key not in IGNORED}
    kinds = {name: dict if name in TABLES else kind for name, (kind, _) in fields_of(Job).items()}
    _check(path, "", job, kinds)
    encoder = job.get("encoder", {"name": "conv4"})
    if "name" not in encoder:
        raise MetarepError(f"{path}: encoder needs a name, one of {', '.join(ENCODERS)}")
    trained = set(encoder) <= {"name", "arch"} and is_trained_name(str(encoder["name"]))
    if not trained and str(encoder["name"]) not in (*ENCODERS, *SIZES):
        near = _nearest(str(encoder["name"]), ENCODERS)
        raise MetarepError(
            f"{path}: encoder.name must be one of {', '.join(ENCODERS)}, not {_short(encoder['name'])}{near}"
        )
    own = ENCODERS["vit" if encoder["name"] in SIZES else "conv4" if trained else encoder["name"]]
    sources = {"encoder": own, "settings": METHODS[method], "train": TrainSettings}
    for table, source in sources.items():
        kinds = {name: kind for name, (kind, _) in fields_of(source).items()}
        kinds |= {"name": str, "arch": str} if table == "encoder" else {}
        _refuse_unknown(path, table, job.get(table, {}), kinds)
        unset = {key for key, value in job.get(table, {}).items() if value == "none" and _may_be_none(kinds[key])}
        _check(path, table, {key: value for key, value in job.get(table, {}).items() if key not in unset}, kinds)
        job |= {table: job[table] | dict.fromkeys(unset)} if unset else {}
    try:
        Job(method, **job)  # before flags change it, so that an error is known to be of the file
    except MetarepError as error:
        raise MetarepError(f"{path}: {error}") from error
    return job


def _parse(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise missing("file", path)
    try:
        with path.open("rb") as file:
            content = file.read(LONGEST + 1)
        if len(content) > LONGEST:
            raise MetarepError(f"{path} has more than {LONGEST:,} bytes; settings have far less: give another file")
        return tomllib.loads(content.decode("utf-8"))
    except RecursionError:
        raise MetarepError(f"{path} is not TOML of settings: it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise MetarepError(f"{path} is not UTF-8 text, which TOML must be; save it as UTF-8") from error
    except MetarepError:
        raise
    except ValueError as error:  # not TOML, or a number of more digits than Python reads
        raise MetarepError(f"{path} is not TOML: {error}") from error


def _refuse_unknown(path: Path, table: str, given: Iterable[str], known: Iterable[str]) -> None:
    for key in given:
        if key not in known:
            full = f"{table}.{key}" if table else key
            near = _nearest(key, known) if table or key not in fields_of(TrainSettings) else "; it belongs to [train]."
            raise MetarepError(f"{path}: unknown key {full[:60]!r}{near} Known: {', '.join(sorted(known))}")


def _nearest(given: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else "."


def _check(path: Path, table: str, given: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Raise for the first value that is not of its type."""
    for key, value in given.items():
        kind, full = kinds[key], f"{table}.{key}" if table else key
        if isinstance(kind, types.UnionType):
            kind = next(arg for arg in get_args(kind) if arg is not type(None))
        if get_origin(kind) is Literal:
            if value not in get_args(kind):
                known = [str(each) for each in get_args(kind)]
                near = _nearest(str(value), known)
                raise MetarepError(f"{path}: {full} must be one of {', '.join(known)}, not {_short(value)}{near}")
        elif get_origin(kind) is Sequence:
            (one,) = get_args(kind)
            if not isinstance(value, list) or not all(_is_of(each, one) for each in value):
                raise MetarepError(f"{path}: {full} must be a list, each of it {KINDS[one]}, not {_short(value)}")
        elif not _is_of(value, kind):
            raise MetarepError(f"{path}: {full} must be {KINDS[kind]}, not {_short(value)}")


def _may_be_none(kind: Any) -> bool:  # noqa: ANN401 - a type hint
    """Whether ``"none"`` means no value, as with the flag: TOML has no null."""
    return isinstance(kind, types.UnionType) and type(None) in get_args(kind) and str not in get_args(kind)


def _is_of(value: object, kind: type) -> bool:
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if isinstance(value, int) and abs(value) > MOST:
        return False
    return isinstance(value, int | float if kind is float else kind)


def _short(value: object) -> str:
    """The value as Python writes it, or its start."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
