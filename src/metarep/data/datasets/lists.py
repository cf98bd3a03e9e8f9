"""The lists of classes of the data sets' splits, which are JSON files in the package."""

import json
from importlib import resources
from typing import Any


def split_list(name: str) -> dict[str, Any]:
    """The content of a list.

    Args:
        name: the name of the file, without its ending.

    >>> len(split_list("fc100")["test"])
    20
    """
    return json.loads((resources.files("metarep.data.datasets") / "splits" / f"{name}.json").read_text("utf-8"))
