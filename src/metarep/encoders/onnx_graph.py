"""ONNX files as bytes: weights that lie in files beside a graph are taken into it, so that it is one file again.

A graph is a protobuf message, and only the few fields on the way to a tensor matter here; all others are copied as they
are. So no package is needed, and none decides which files are read.
"""

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
    return _read(path.read_bytes(), beside, str(path))


def refuse_files_beside(content: bytes) -> None:
    """Raise if a graph would read weights from a file: a name in it then means a place on the machine that runs it.

    Raises:
        MetarepError: it would; or it is no ONNX graph.
    """

    def refuse(location: str, *_: object) -> bytes:
        raise MetarepError(f"this ONNX graph wants weights from the file {location!r}; an encoder holds all of its own")

    _read(content, refuse, "this")


def _read(content: bytes, beside: Beside, name: str) -> bytes:
    try:
        if not content:
            raise ValueError("it is empty")
        return _with_weights(memoryview(content), "model", beside)
    except MetarepError:
        raise
    except (IndexError, ValueError, RecursionError) as error:
        raise MetarepError(f"{name} is no ONNX graph, or a damaged one: {error}") from None


def _with_weights(message: memoryview, kind: str, beside: Beside) -> bytes:
    """A message with the bytes of its tensors inside."""
    if kind == "tensor":
        return _tensor(message, beside)
    parts = []
    for number, wire, field, value in _fields(message):
        road = ROADS[kind].get(number)
        if road is None or wire != 2:
            parts.append(bytes(field))
        else:
            parts.append(_field(number, _with_weights(value, road, beside)))
    return b"".join(parts)


def _tensor(message: memoryview, beside: Beside) -> bytes:
    """A tensor with its bytes inside. Elsewhere they are as one or the other field says, so either is enough."""
    kept, told, outside = [], {}, False
    for number, wire, field, value in _fields(message):
        if number == EXTERNAL and wire == 2:
            entry = {place: bytes(text).decode() for place, _, _, text in _fields(value)}
            told[entry.get(1, "")] = entry.get(2, "")
        elif number == WHERE and wire == 0:
            outside = outside or bytes(value) != b"\0"
        else:
            kept.append(bytes(field))
    if not outside and "location" not in told:
        return b"".join(kept)
    length = told.get("length")
    content = beside(told.get("location", ""), int(told.get("offset") or 0), None if length is None else int(length))
    return b"".join([*kept, _field(RAW, content)])


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
