"""Wording of what the web framework refuses, as a message and an advice for whoever wrote the request."""

import json
import re
from collections.abc import Mapping
from typing import Any

LONGEST = 40  # characters of a value that a message repeats
ALL = "/openapi.json describes every request"
AS_FORM = "send images as multipart/form-data, as in curl -F files=@new.jpg"
AS_JSON = "send JSON in UTF-8, with the header 'content-type: application/json'"
FILES = ("file", "files")


def of_a_field(error: Mapping[str, Any]) -> tuple[str, str]:
    """Words an error of pydantic: what is wrong with a field of a request, and what to do.

    Args:
        error: one of the errors of a ``RequestValidationError``.

    >>> of_a_field({"type": "less_than_equal", "loc": ("query", "neighbours"), "input": "99", "ctx": {"le": 50}})
    ("the parameter 'neighbours' must be at most 50, not 99", '/openapi.json describes every request')
    """
    kind, (location, *path) = error["type"], error["loc"]
    name = next((part for part in path if isinstance(part, str)), "")
    if kind == "json_invalid":
        return f"the body is not JSON: it breaks off or is wrong at character {path[0] if path else 0}", AS_JSON
    if not name:
        return "the request has no body" if kind == "missing" else "the body is not a JSON object", AS_JSON
    whats = {"query": f"the parameter {name!r}", "path": "the number in the address"}
    what = whats.get(location, f"the field {name!r}")
    if kind == "missing":
        return (f"the request brings no image in {what}", AS_FORM) if name in FILES else (f"{what} is missing", ALL)
    if name in FILES:
        return f"{what} holds text, and no file", AS_FORM
    context = error.get("ctx", {})
    wants = {
        "greater_than_equal": f"at least {context.get('ge')}",
        "less_than_equal": f"at most {context.get('le')}",
        "string_type": "a text",
    }
    want = wants.get(kind) or ("a whole number" if kind.startswith("int") else "true or false")
    return f"{what} must be {want}, not {_given(error.get('input'), bare='ge' in context or 'le' in context)}", ALL


def _given(value: Any, *, bare: bool) -> str:  # noqa: ANN401 - whatever a request holds
    """A value of a request as text, cut if it is long. A text has quotes unless it is ``bare``, as numbers are."""
    if isinstance(value, str):
        text = value if bare else repr(value)
    else:
        text = json.dumps(value) if isinstance(value, int | float | list | dict | None) else "a file"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def of_a_request(status: int, detail: str, method: str, path: str) -> tuple[str, str]:
    """Words what the framework refuses before a route sees it: an unknown address or method, or a damaged body.

    Args:
        status: 400, 404 or 405.
        detail: the message of the framework.
        method, path: of the request.

    >>> of_a_request(404, "Not Found", "GET", "/nothing")
    ("there is nothing at '/nothing'", '/openapi.json describes every request')
    """
    address = repr(path if len(path) <= LONGEST else f"{path[:LONGEST]}…")
    if status == 404:
        return f"there is nothing at {address}", ALL
    if status == 405:
        return f"{address} does not take {method[:LONGEST]}", ALL
    if most := re.search(r"Maximum number of (fields|files) is (\d+)", detail):
        return f"the form has more than {int(most[2]):,} {most[1]}", "send them in several requests"
    return "the body cannot be read", f"{AS_JSON}; or {AS_FORM}"
