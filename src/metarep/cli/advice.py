"""Words errors and warnings for the command line: options become flags, and calls become commands."""

import os
import shlex
from typing import Any

from metarep.errors import Advised, Call


def worded(error: Advised | Warning | str) -> str:
    """Write the message of an error or a warning and its advice as one line.

    >>> from metarep.errors import Advice, MetarepError
    >>> worded(MetarepError("the loss is NaN", advice=Advice("try a smaller {lr} or {clip}", lr=..., clip=1.0)))
    'the loss is NaN; try a smaller --lr or --clip 1'
    """
    return error.worded(flag) if isinstance(error, Advised) else str(error)


def flag(name: str, value: Any) -> str:  # noqa: ANN401 - the value of any option
    """Write an option and its value as they are typed, and a call as the whole command.

    >>> flag("skip_bad", True), flag("stop_on_collapse", False), flag("head", "prototype")
    ('--skip-bad', '--no-stop-on-collapse', '--head prototype')
    >>> from pathlib import Path
    >>> flag("fit", Call("ModelFolder.create", "fit", "PHOTOS", out=Path("my moths")))
    "metarep fit PHOTOS --out 'my moths'"
    """
    if isinstance(value, Call):
        options = (flag(*option) for option in value.options.items())
        return " ".join(["metarep", value.command, *map(_typed, value.arguments), *options])
    dashed = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{dashed}" if value else f"--no-{dashed}"
    return f"--{dashed}" if value is ... else f"--{dashed} {_typed(value)}"


def _typed(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return shlex.quote(f"./{text}" if isinstance(value, os.PathLike) and text.startswith("-") else text)
