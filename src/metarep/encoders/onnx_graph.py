"""ONNX files as bytes: weights in files beside a graph are put into the graph, so that it is one file.

A graph is a protobuf message. Only the few fields that lead to a tensor are read here; all others are copied as they
are. So no other package is needed, and no other package decides which files are opened.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from metarep.errors import MetarepError

LARGEST = (1 << 31) - 1  # bytes of a protobuf message
LONGEST = 255  # characters of the name of a file
# Reads a file beside the graph: location, offset in bytes, length in bytes (None: to the end of the file).
Beside = Callable[[str, int, int | None], bytes]

# For each message type of onnx.proto: the numbers of the fields that lead to tensors, and the types of these fields.
FIELDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
# Fields of a tensor: raw_data, its bytes; external_data, the file that holds them; data_location, 1 if a file does.
RAW, EXTERNAL, LOCATION = 9, 13, 14


def read_graph(path: Path) -> bytes:
    """Read an ONNX file and put all of its weights inside.

    Weights may be in files in the folder of ``path``, as torch 2.9 and later write them (``FILE.onnx.data``). A graph
    that names a file in another folder is refused.

    Returns:
        The bytes of one ONNX file without external data.

    Raises:
        MetarepError: the file is not an ONNX graph, is larger than 2 GiB with its weights, or its weights are missing,
            in another folder, or shorter than the graph says.
    """
    parents = (path.parent, path.resolve().parent)  # a cache of downloads holds links to files of another folder
    folders = {each.resolve() for each in parents}
    size = [path.stat().st_size]

    def beside(location: str, start: int, length: int | None) -> bytes:
        if len(location) > LONGEST:
            raise MetarepError(f"{path} wants weights from a file whose name has {len(location):,} characters")
        file = next((each / location for each in parents if (each / location).is_file()), path.parent / location)
        if not location or os.path.isabs(location) or not any(file.resolve().is_relative_to(each) for each in folders):
            raise MetarepError(
                f"{path} wants weights from {location!r}, which is outside of its folder; do not trust it"
            )
        if not file.is_file():
            raise MetarepError(f"{path} keeps its weights in {location}, which is not beside it; copy both files")
        available = file.stat().st_size
        length = available - start if length is None else length
        if start < 0 or length < 0 or start + length > available:
            raise MetarepError(
                f"{path} wants {max(length, 0):,} bytes of {location} from {start:,}, and it has {available:,}; "
                "copy it again"
            )
        size[0] += length
        if size[0] > LARGEST:
            raise MetarepError(f"{path} and its weights are larger than 2 GiB, which is the limit of one ONNX graph")
        with file.open("rb") as content:
            content.seek(start)
            return content.read(length)

    if size[0] > LARGEST:
        raise MetarepError(f"{path} is larger than 2 GiB, which is the limit of one ONNX graph")
    with _readable(str(path)):
        content = path.read_bytes()
        if not content:
            raise ValueError("it is empty")
        return _with_weights(memoryview(content), "model", beside)


def refuse_files_beside(content: bytes) -> None:
    """Raise if a graph would read weights from a file; a saved encoder must not open files of the machine it runs on.

    Raises:
        MetarepError: the graph names a file, or it is not an ONNX graph.
    """
    with _readable("this"):
        for tensor in _tensors(memoryview(content), "model"):
            if (outside := _outside(tensor)) is not None:
                file = outside.get("location", "")
                raise MetarepError(
                    f"this ONNX graph wants weights from the file {file!r}; an encoder holds all of its own"
                )


@contextlib.contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turn what a malformed message raises into an error that names the file."""
    try:
        yield
    except MetarepError:
        raise
    except (IndexError, ValueError, RecursionError) as error:
        raise MetarepError(f"{name} is not an ONNX graph, or it is damaged: {error}; export it again") from None


def _with_weights(message: memoryview, kind: str, beside: Beside) -> bytes:
    """The message of the type ``kind`` with the bytes of its external tensors inside."""
    if kind == "tensor":
        outside = _outside(message)
        if outside is None:
            return bytes(message)
        length = outside.get("length")
        start = int(outside.get("offset") or 0)
        content = beside(outside.get("location", ""), start, None if length is None else int(length))
        kept = [bytes(field) for number, _, field, _ in _fields(message) if number not in (EXTERNAL, LOCATION)]
        return b"".join([*kept, _field(RAW, content)])
    parts = []
    for number, wire, field, value in _fields(message):
        inner = FIELDS[kind].get(number) if wire == 2 else None
        parts.append(bytes(field) if inner is None else _field(number, _with_weights(value, inner, beside)))
    return b"".join(parts)


def _tensors(message: memoryview, kind: str) -> Iterator[memoryview]:
    """All tensors in a message of the type ``kind``, at any depth."""
    for number, wire, _, value in _fields(message):
        if (inner := FIELDS[kind].get(number)) is not None and wire == 2:
            yield from [value] if inner == "tensor" else _tensors(value, inner)


def _outside(tensor: memoryview) -> dict[str, str] | None:
    """The ``external_data`` entries of a tensor (location, offset, length); None if its bytes are in the graph.

    A tensor says in two fields that its bytes are in a file; either is enough.
    """
    entries, outside = dict[str, str](), False
    for number, wire, _, value in _fields(tensor):
        if number == EXTERNAL and wire == 2:
            entry = {key: bytes(text).decode() for key, _, _, text in _fields(value)}
            entries[entry.get(1, "")] = entry.get(2, "")
        elif number == LOCATION and wire == 0:
            outside = outside or bytes(value) != b"\0"
    return entries if outside or "location" in entries else None


def _fields(message: memoryview) -> Iterator[tuple[int, int, memoryview, memoryview]]:
    """The fields of a message: number, wire type, all bytes, bytes of the value (without its length)."""
    position = 0
    while position < len(message):
        start = position
        key, position = _varint(message, position)
        wire, value = key & 7, position
        if wire == 0:
            _, position = _varint(message, position)
        elif wire == 2:
            length, value = _varint(message, position)
            position = value + length
        elif wire in (1, 5):
            position += 8 if wire == 1 else 4
        else:
            raise ValueError(f"a field of the unknown type {wire}")
        if position > len(message):
            raise ValueError("it ends too early")
        yield key >> 3, wire, message[start:position], message[value:position]


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Read a varint (seven bits a byte) at a position; returns the number and the position behind it."""
    number = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, position
    raise ValueError("a number has no end")


def _field(number: int, content: bytes) -> bytes:
    """The bytes of a length-delimited field."""
    return _number(number << 3 | 2) + _number(len(content)) + content


def _number(number: int) -> bytes:
    """A number as a varint."""
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])
