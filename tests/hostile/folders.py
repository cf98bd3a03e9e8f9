"""Model folders and index folders that a stranger may send."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from hostile.tensors import DEEP, HUGE, Change, setting

GALLERY: Mapping[str, Change] = {
    "another format": setting("format", to="model-9"),
    "names that are a text": setting("names", to="ab"),
    "names that are numbers": setting("names", to=[1, 2]),
    "names that are lists": setting("names", to=[["moth"], ["fly"]]),
    "one name too few": setting("names", to=["moth"]),
    "a name twice": setting("names", to=["moth", "moth"]),
    "items that are numbers": setting("items", to=[1] * 6),
    "one item too few": setting("items", to=["0.png"] * 5),
    "a next id that is a text": setting("next_id", to="6"),
    "a next id that was given already": setting("next_id", to=0),
    "a head that is a text": setting("head", to="prototypes"),
    "a head that is unknown": setting("head", to={"name": "eval"}),
    "a head of unknown settings": setting("head", to={"name": "prototypes", "x": 1}),
    "a head of a billion rows": setting("head", to={"name": "descent", "head": "rows", "ways": HUGE}),
    "a head of a billion rates": setting("head", to={"name": "descent", "rates": "layer", "steps": HUGE}),
    "false alarms that are a text": setting("false_alarms", to="0.05"),
    "a depth that is a list": setting("depth", to=[1]),
    "a trust that is a list": setting("trust", to=[1]),
    "a trust of another kind": setting("trust", "scale", to="1"),
    "a trust of unknown fields": setting("trust", "x", to=1),
    "a trust without classes": setting("trust", "classes", to=[1]),
    "another encoder": setting("space", to="0" * 16),
}
GALLERY_TENSORS: Mapping[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "a class that is not there": lambda own: own["classes"].fill_(7),
    "a class of 10^12": lambda own: own["classes"].fill_(10**12),
    "a class below 0": lambda own: own["classes"].fill_(-1),
    "classes that are numbers of floats": lambda own: own.update(classes=own["classes"].float()),
    "classes of two dimensions": lambda own: own.update(classes=own["classes"][:, None]),
    "rows that are a number": lambda own: own.update(rows=torch.tensor(1.0)),
    "rows of another width": lambda own: own.update(rows=own["rows"][:, :5]),
    "rows of three dimensions": lambda own: own.update(rows=own["rows"][:, None]),
    "rows of bytes": lambda own: own.update(rows=own["rows"].byte()),
    "rows of NaN": lambda own: own["rows"].fill_(float("nan")),
    "ids twice": lambda own: own["ids"].fill_(3),
    "ids below 0": lambda own: own.update(ids=-own["ids"]),
    "ids of floats": lambda own: own.update(ids=own["ids"].float()),
    "hashes of another width": lambda own: own.update(hashes=own["hashes"][:, :3]),
    "hashes of floats": lambda own: own.update(hashes=own["hashes"].float()),
    "a state of another shape": lambda own: own.update(
        {name: part[:, :1] for name, part in own.items() if name.startswith("state.")}
    ),
    "a state of nothing": lambda own: (
        [own.pop(name) for name in list(own) if name.startswith("state.")][:0]
        or own.update({"state.x": torch.zeros(1)})
    ),
    "no rows": lambda own: own.pop("rows"),
}
VECTORS: Mapping[str, Change] = {
    "another format": setting("format", to=99),
    "an unknown backend": setting("index", to="eval"),
    "a backend that is a list": setting("index", to=["exact"]),
    "a dim of a billion": setting("dim", to=HUGE),
    "a dim of 0": setting("dim", to=0),
    "a dim that is a text": setting("dim", to="8"),
    "a device that is not there": setting("settings", to={"device": "cuda:99"}),
    "a device that is a number": setting("settings", to={"device": 7}),
    "settings that are unknown": setting("settings", to={"x": 1}),
    "settings that are a list": setting("settings", to=[]),
    "more that is a list": setting("more", to=[]),
    "a number that is a text": setting("n", to="6"),
    "another encoder": setting("space", to="0" * 16),
    "a space that is a number": setting("space", to=7),
}
VECTOR_TENSORS: Mapping[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "an id twice": lambda own: own["ids"].fill_(3),
    "ids of floats": lambda own: own.update(ids=own["ids"].float()),
    "ids of two dimensions": lambda own: own.update(ids=own["ids"][:, None]),
    "ids below 0": lambda own: own["ids"].fill_(-5),
    "one id too few": lambda own: own.update(ids=own["ids"][:-1]),
    "vectors of another width": lambda own: own.update({"vectors.0": own["vectors.0"][:, :3]}),
    "vectors of NaN": lambda own: own["vectors.0"].fill_(float("nan")),
    "no vectors": lambda own: own.pop("vectors.0"),
    "no ids": lambda own: own.pop("ids"),
}
ITEM = b'{"id": 0, "path": "/a", "size": 1, "time": 1, "digest": "0"}\n'
LINES: Mapping[str, bytes] = {
    "deep JSON": DEEP.encode() + b"\n",
    "a line of a list": b"[1, 2]\n",
    "a line that is a number": b"1\n",
    "a line without an id": b'{"path": "/a"}\n',
    "an id that is a text": ITEM.replace(b"0,", b'"0",', 1),
    "an id that is a list": ITEM.replace(b"0,", b"[],", 1),
    "an id of 10^30": ITEM.replace(b"0,", b"1" + b"0" * 30 + b",", 1),
    "a path that is a number": ITEM.replace(b'"/a"', b"7"),
    "a path that is a list": ITEM.replace(b'"/a"', b"[]"),
    "a path with a NUL": ITEM.replace(b'"/a"', b'"\\u0000"'),
    "a size that is a text": ITEM.replace(b"1,", b'"1",', 1),
    "a line of 8 million lists": b"[" + b"[]," * 8_000_000 + b"[]]\n",
    "no UTF-8": b"\xff\xfe\n",
    "unknown fields": ITEM.replace(b"{", b'{"x": 1, '),
}


def first_line(line: bytes) -> Callable[[Path], object]:
    """The change that puts a line before those of a file."""

    def change(path: Path) -> None:
        file = path.parent / "items.jsonl"
        file.write_bytes(line + file.read_bytes())

    return change
