"""Files from strangers: JSON and headers of tensors, whose sizes are checked before memory is taken."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import safe_open

# A header may have FREE bytes, and TIMES bytes for each byte of the tensors. Ours stay far below: a gallery has at
# least 270 bytes of tensors for an image, and the name of the image in its header.
FREE, TIMES = 8 << 20, 4
MOST_TENSORS = 1 << 16


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401 - whatever the text holds
    """The value of a JSON text.

    Python's parser raises a RecursionError for lists in lists in lists, which is no ValueError and would pass through
    the handlers of damaged files.

    Raises:
        ValueError: it is not JSON, not UTF-8, or nested too deeply.

    >>> parse_json('{"step": 3}')
    {'step': 3}
    >>> parse_json("[" * 100_000)
    Traceback (most recent call last):
    ValueError: its JSON is nested too deeply
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """A context with an open safetensors file, whose tensors are mapped and not yet read.

    Args:
        path: the file.

    Yields:
        What ``safetensors.safe_open`` gives.

    Raises:
        ValueError: it is another kind of file, or the header claims more bytes than the file has, is too long for its
            tensors, or names too many.
        SafetensorError: the file is damaged.
        OSError: the file cannot be read.
    """
    with path.open("rb") as held:
        check_header(held)
        with safe_open(_name_of(held, path), framework="pt") as file:
            if len(file.keys()) > MOST_TENSORS:
                raise ValueError(f"it names {len(file.keys()):,} tensors; at most {MOST_TENSORS:,} are read")
            yield file


def check_header(file: BinaryIO) -> None:
    """Raise unless the header of a safetensors file has a length that suits its tensors.

    A parsed header takes up to thirty times the bytes of its text, so this bounds the memory before it is parsed.

    Args:
        file: the file, open for reading at its start.

    Raises:
        ValueError: see :func:`open_tensors`.
    """
    start = file.read(9)
    if start[8:] != b"{":  # the header of a safetensors file is JSON, after its length in eight bytes
        raise ValueError("it is not a safetensors file")
    size, length = os.fstat(file.fileno()).st_size, int.from_bytes(start[:8], "little")
    tensors = size - 8 - length
    if tensors < 0:
        raise ValueError(f"its header claims {length:,} bytes, and the file has {size:,}")
    if length > FREE + TIMES * tensors:
        raise ValueError(f"its header has {length:,} bytes, which is too long for {tensors:,} bytes of tensors")


def _name_of(held: BinaryIO, path: Path) -> str:
    """A path that leads to an open file, even if another file has its old path now.

    safetensors opens a file twice, for the header and for the tensors. A writer may replace the file in between.
    """
    names = (f"{folder}/{held.fileno()}" for folder in ("/proc/self/fd", "/dev/fd"))
    return next((name for name in names if os.path.exists(name)), str(path))
