"""The check that a table or collection on a server holds the vectors that an index expects."""

from typing import Any

from metarep.errors import MetarepError
from metarep.index.index import SpaceError


def refuse_other_vectors(kind: str, name: str, about: dict[str, Any], dim: int, space: str) -> None:
    """Raise unless a table or collection holds vectors of this dimension and of this encoder.

    Args:
        kind: ``table`` or ``collection``, for the message.
        name: its name on the server.
        about: what the server says about it: ``metarep`` (1), ``dim`` and ``space``.
        dim: dimension of the index.
        space: digest of the encoder of the index.

    Raises:
        SpaceError: it holds vectors of another encoder.
        MetarepError: metarep did not make it, or its vectors have another dimension.

    >>> refuse_other_vectors("table", "photos", {"metarep": 1, "dim": 64, "space": "1f"}, 64, "1f")
    """
    if about.get("metarep") != 1:
        raise MetarepError(f"the {kind} {name} was not made by metarep; choose another name")
    if about["dim"] != dim:
        raise MetarepError(
            f"the {kind} {name} holds vectors of {about['dim']} dimensions, not {dim}; choose another {kind}"
        )
    if about["space"] != space:
        raise SpaceError(
            f"the {kind} {name} holds vectors of the encoder {about['space']}, not {space}; choose another {kind}"
        )
