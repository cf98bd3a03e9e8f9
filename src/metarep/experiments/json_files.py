"""JSON files of a run or a comparison: written as a whole, read with a check, and compared with what is asked for."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from metarep.errors import Advice, MetarepError
from metarep.machine.files import replacing
from metarep.machine.untrusted import parse_json

ANOTHER_FOLDER = Advice("choose another {out}", out=...)
OTHERWISE = (ANOTHER_FOLDER, "delete the folder")


def read_values(path: Path, otherwise: str = "is damaged (it holds no values by name)") -> dict[str, Any]:
    """The values of a file, by name.

    Args:
        path: the file.
        otherwise: what the error says of a file that holds JSON of another form.

    Raises:
        MetarepError: the file is damaged, or holds something else.
    """
    try:
        content = parse_json(path.read_text())
    except ValueError as error:
        raise MetarepError(f"{path} is damaged ({error})", advice=OTHERWISE) from error
    if not isinstance(content, dict):
        raise MetarepError(f"{path} {otherwise}", advice=OTHERWISE)
    return content


def write_values(path: Path, content: Any) -> None:  # noqa: ANN401 - anything JSON holds
    """Write a file, and its folder. It replaces an older one only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


def refuse_differing(folder: Path, what: str, differences: Iterable[tuple[str, Any, Any]]) -> None:
    """Raise an error if a folder holds something else than what is asked for.

    Args:
        folder: the folder.
        what: what it holds, such as ``a run``.
        differences: name, value in the folder, and value asked for, of each setting that differs.

    Raises:
        MetarepError: there are differences.
    """
    if said := ", and ".join(f"{name} = {was!r}, not {now!r}" for name, was, now in differences):
        raise MetarepError(f"{folder} holds {what} with {said}", advice=OTHERWISE)
