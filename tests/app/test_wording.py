"""What the web framework refuses is said in the words of this server, with what to do."""

from typing import Any

import pytest
from serving import drawing, refused

from metarep.app.wording import ALL, AS_FORM, AS_JSON

IMAGE = {"files": ("a.png", drawing("ring", 1))}
AS = "application/json"
UNCHOSEN = (
    b'--x\r\nContent-Disposition: form-data; name="files"; filename=""\r\n\r\n\r\n--x--\r\n'  # as a browser sends
)
REQUESTS = {
    "no image": ("POST", "/predict", {}, 422, "the request brings no image in the field 'files'", AS_FORM),
    "a form without a file": (
        "POST",
        "/predict",
        {"content": UNCHOSEN, "headers": {"content-type": "multipart/form-data; boundary=x"}},
        422,
        "the request brings no image in the field 'files'",
        AS_FORM,
    ),
    "text for a file": ("POST", "/predict", {"data": {"files": "a.png"}}, 422, "the field 'files' holds text", AS_FORM),
    "no name": ("POST", "/classes", {"files": IMAGE}, 422, "the field 'name' is missing", ALL),
    "a file for a name": (
        "POST",
        "/classes",
        {"files": IMAGE | {"name": ("a.png", b"1")}},
        422,
        "the field 'name' must be a text, not a file",
        ALL,
    ),
    "no parameter": ("DELETE", "/classes", {}, 422, "the parameter 'name' is missing", ALL),
    "a word for a number": (
        "POST",
        "/predict?neighbours=many",
        {"files": IMAGE},
        422,
        "the parameter 'neighbours' must be a whole number, not 'many'",
        ALL,
    ),
    "too many": (
        "POST",
        "/predict?neighbours=99",
        {"files": IMAGE},
        422,
        "the parameter 'neighbours' must be at most 50, not 99",
        ALL,
    ),
    "too few": (
        "POST",
        "/search?neighbours=0",
        {"files": {"file": IMAGE["files"]}},
        422,
        "the parameter 'neighbours' must be at least 1, not 0",
        ALL,
    ),
    "a word for an image": ("GET", "/images/x", {}, 422, "the number in the address must be a whole number", ALL),
    "an image that is not there": ("GET", "/images/99", {}, 404, "the model has no image 99; it may have been", None),
    "JSON that breaks off": (
        "PATCH",
        "/classes",
        {"content": b'{"name": ', "headers": {"content-type": AS}},
        422,
        "the body is not JSON: it breaks off or is wrong at character 9",
        AS_JSON,
    ),
    "no body": ("PATCH", "/classes", {}, 422, "the request has no body", AS_JSON),
    "a list": ("PATCH", "/classes", {"json": [1]}, 422, "the body is not a JSON object", AS_JSON),
    "a field too few": ("PATCH", "/classes", {"json": {"name": "ring"}}, 422, "the field 'to' is missing", ALL),
    "a number for a text": (
        "PATCH",
        "/images/0",
        {"json": {"to": 3}},
        422,
        "the field 'to' must be a text, not 3",
        ALL,
    ),
    "nothing for a text": ("PATCH", "/images/0", {"json": {"to": None}}, 422, "'to' must be a text, not null", ALL),
    "a word for yes": (
        "PATCH",
        "/classes",
        {"json": {"name": "ring", "to": "o", "merge": "often"}},
        422,
        "the field 'merge' must be true or false, not 'often'",
        ALL,
    ),
    "a long value": ("PATCH", "/images/0", {"json": {"to": [0] * 99}}, 422, "a text, not [0, 0, 0", ALL),
    "not UTF-8": (
        "PATCH",
        "/classes",
        {"content": b'{"name": "\xff"}', "headers": {"content-type": AS}},
        400,
        "the body cannot be read",
        f"{AS_JSON}; or {AS_FORM}",
    ),
    "no boundary": (
        "POST",
        "/predict",
        {"content": b"a", "headers": {"content-type": "multipart/form-data"}},
        400,
        "the body cannot be read",
        f"{AS_JSON}; or {AS_FORM}",
    ),
    "no such address": ("GET", "/nothing", {}, 404, "there is nothing at '/nothing'", ALL),
    "no such page": ("GET", "/page/nothing.js", {}, 404, "there is nothing at '/page/nothing.js'", ALL),
    "another method": ("GET", "/predict", {}, 405, "'/predict' does not take GET", ALL),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REQUESTS)
def test_a_refusal_is_in_our_words(name: str, taught: Any) -> None:
    method, path, content, status, said, advice = REQUESTS[name]
    response = taught.request(method, path, **content)
    detail = refused(response, status, said)
    assert response.json().get("advice") == advice
    assert "Input should" not in detail
    assert "gallery" not in response.text
    if status == 405:
        assert response.headers["allow"] == "POST"
