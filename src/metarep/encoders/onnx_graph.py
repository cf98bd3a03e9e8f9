"""ONNX files as bytes: weights that lie in files beside a graph are taken into it, so that it is one file again.

A graph is a protobuf message, and only the few fields on the way to a tensor matter here; all others are copied as they
are. So no package is needed, and none decides which files are read.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from metarep.errors import MetarepError

LARGEST = (1 << 31) - 1  # bytes of a protobuf message
Beside = Callable[[str, int, int | None], bytes]  # the bytes of a file, from a place, so many or to its end

# Of each kind of message of onnx.proto, the numbers of the fields that lead to tensors, and what stands there.
ROADS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
RAW, EXTERNAL, WHERE = 9, 13, 14  # of a tensor: its bytes; in which file they are; 1 if they are in one


def read_graph(path: Path) -> bytes:
    """An ONNX file with all of its weights inside.

    Weights may lie in files in the folder of ``path``, as torch 2.9 and later write them (``FILE.onnx.data``); a graph
    that names another place is refused.

    Raises:
        MetarepError: no ONNX file; weights that are missing, elsewhere, or shorter than the graph says; over 2 GiB.
    """
    places = (path.parent, path.resolve().parent)  # a cache of downloads holds links to files of another folder
    folders = {each.resolve() for each in places}
    size = [path.stat().st_size]

    def beside(location: str, start: int, length: int | None) -> bytes:
        file = next((each / location for each in places if (each / location).is_file()), path.parent / location)
        if not location or os.path.isabs(location) or not any(file.resolve().is_relative_to(each) for each in folders):
            raise MetarepError(
                f"{path} wants weights from {location!r}, which is outside of its folder; do not trust it"
            )
        if not file.is_file():
            raise MetarepError(f"{path} keeps its weights in {location}, which is not beside it; copy both files")
        there = file.stat().st_size
        length = there - start if length is None else length
        if start < 0 or length < 0 or start + length > there:
            raise MetarepError(
                f"{path} wants {max(length, 0):,} bytes of {location} from {start:,}, and it has {there:,}; "
                "copy it again"
            )
        size[0] += length
        if size[0] > LARGEST:
            raise MetarepError(f"{path} and its weights are larger than the 2 GiB that one ONNX graph may hold")
        with file.open("rb") as content:
            content.seek(start)
            return content.read(length)

    if size[0] > LARGEST:
        raise MetarepError(f"{path} is larger than the 2 GiB that one ONNX graph may hold")
    with _told(str(path)):
        content = path.read_bytes()
        if not content:
            raise ValueError("it is empty")
        return _with_weights(memoryview(content), "model", beside)


def refuse_files_beside(content: bytes) -> None:
    """Raise if a graph would read weights from a file: a name in it then means a place on the machine that runs it.

    Raises:
        MetarepError: it would; or it is no ONNX graph.
    """
    with _told("this"):
        for tensor in _tensors(memoryview(content), "model"):
            if (outside := _outside(tensor)) is not None:
                file = outside.get("location", "")
                raise MetarepError(
                    f"this ONNX graph wants weights from the file {file!r}; an encoder holds all of its own"
                )


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    """What reading a message that is none raises, as an error that says so."""
    try:
        yield
    except MetarepError:
        raise
    except (IndexError, ValueError, RecursionError) as error:
        raise MetarepError(f"{name} is no ONNX graph, or a damaged one: {error}") from None


def _with_weights(message: memoryview, kind: str, beside: Beside) -> bytes:
    """A message with the bytes of its tensors inside."""
    if kind == "tensor":
        outside = _outside(message)
        if outside is None:
            return bytes(message)
        length = outside.get("length")
        place = outside.get("location", ""), int(outside.get("offset") or 0), None if length is None else int(length)
        kept = [bytes(field) for number, _, field, _ in _fields(message) if number not in (EXTERNAL, WHERE)]
        return b"".join([*kept, _field(RAW, beside(*place))])
    parts = []
    for number, wire, field, value in _fields(message):
        road = ROADS[kind].get(number) if wire == 2 else None
        parts.append(bytes(field) if road is None else _field(number, _with_weights(value, road, beside)))
    return b"".join(parts)


def _tensors(message: memoryview, kind: str) -> Iterator[memoryview]:
    """All tensors in a message."""
    for number, wire, _, value in _fields(message):
        if (road := ROADS[kind].get(number)) is not None and wire == 2:
            yield from [value] if road == "tensor" else _tensors(value, road)


def _outside(tensor: memoryview) -> dict[str, str] | None:
    """Where the bytes of a tensor lie, if they lie in a file; it says so in two fields, and either is enough."""
    told, outside = dict[str, str](), False
    for number, wire, _, value in _fields(tensor):
        if number == EXTERNAL and wire == 2:
            entry = {place: bytes(text).decode() for place, _, _, text in _fields(value)}
            told[entry.get(1, "")] = entry.get(2, "")
        elif number == WHERE and wire == 0:
            outside = outside or bytes(value) != b"\0"
    return told if outside or "location" in told else None


def _fields(message: memoryview) -> Iterator[tuple[int, int, memoryview, memoryview]]:
    """The fields of a message: number, wire type, all bytes, bytes of the value (without its length)."""
    place = 0
    while place < len(message):
        start = place
        key, place = _varint(message, place)
        wire, value = key & 7, place
        if wire == 0:
            _, place = _varint(message, place)
        elif wire == 2:
            length, value = _varint(message, place)
            place = value + length
        elif wire in (1, 5):
            place += 8 if wire == 1 else 4
        else:
            raise ValueError(f"a field of the unknown type {wire}")
        if place > len(message):
            raise ValueError("it ends too early")
        yield key >> 3, wire, message[start:place], message[value:place]


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        byte = message[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place
    raise ValueError("a number has no end")


def _field(number: int, content: bytes) -> bytes:
    return _number(number << 3 | 2) + _number(len(content)) + content


def _number(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])
