"""Read pickles of data without running code from them: arrays, numbers, text, lists and dicts, and nothing else."""

import pickle
from io import BufferedIOBase
from typing import IO, Any

import numpy as np

from metarep.errors import DataError, one_line

_NUMPY = ("numpy.core", "numpy._core")  # old and new homes of the same functions


def read_pickle(file: BufferedIOBase | IO[bytes], name: str) -> Any:  # noqa: ANN401 - whatever the pickle holds
    """Read a pickle that holds only data, also one of Python 2.

    A pickle is a program, and this reader does not let it call any function outside this module. The functions by
    which numpy's pickles rebuild an array are replaced by plain recorders, and the arrays are made from what these
    recorded. (Even numpy's own ``dtype`` takes internal flags from the pickle, which is enough to corrupt memory.)

    Args:
        file: the pickle, open for reading.
        name: the name of the pickle in an error.

    Returns:
        The content. Keys of dicts are text, and other strings of Python 2 are bytes. Arrays are read-only views of
        the bytes of the pickle.

    Raises:
        DataError: the pickle asks for anything else, or is damaged.

    >>> import io
    >>> read_pickle(io.BytesIO(pickle.dumps({b"labels": [1, 2], "pixels": np.zeros(2, np.uint8)})), "batch")
    {'labels': [1, 2], 'pixels': array([0, 0], dtype=uint8)}
    >>> read_pickle(io.BytesIO(pickle.dumps(print)), "batch")
    Traceback (most recent call last):
    metarep.errors.DataError: batch asks for 'builtins.print', which is not data; it may be hostile: do not use it
    """
    try:
        return _plain(_Reader(file, encoding="bytes").load())
    except DataError as error:
        raise DataError(f"{name} {error}") from None
    except Exception as error:  # a damaged pickle makes the reader raise almost anything
        raise DataError(
            f"{name} is damaged or half-downloaded ({one_line(error)}); delete it and fetch it again"
        ) from error


class _Type:
    """Replaces ``numpy.dtype``: records the type of the elements of an array and their byte order."""

    def __init__(self, code: str | bytes, *_: object) -> None:
        self.code = code.decode("ascii") if isinstance(code, bytes) else code
        self.order = "|"

    def __setstate__(self, state: tuple) -> None:
        order = state[1]
        self.order = order.decode("ascii") if isinstance(order, bytes) else order

    @property
    def dtype(self) -> np.dtype:
        """The recorded type, if its elements are numbers or text."""
        dtype = np.dtype(self.code)
        if dtype.kind not in "biufSU":
            raise DataError(f"holds an array of {self.code!r}, which are neither numbers nor text")
        return dtype.newbyteorder(">") if self.order == ">" else dtype.newbyteorder("<")


class _Array:
    """Replaces ``numpy.ndarray``: records shape, type and bytes."""

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, self.kind, self.fortran, self.content = state

    def array(self) -> np.ndarray:
        """The recorded array."""
        flat = np.frombuffer(self.content, dtype=self.kind.dtype)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _from_buffer(content: bytes | bytearray, kind: _Type, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, kind, order == "F", content))
    return array


def _scalar(kind: _Type, content: bytes) -> Any:  # noqa: ANN401 - a number or a string
    return np.frombuffer(content, dtype=kind.dtype)[0].item()


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", b"latin1"):  # Python 3 writes bytes like this in old protocols; others may be bombs
        raise DataError(f"asks for the encoding {encoding!r}, which is not data; it may be hostile: do not use it")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


_ADMITTED = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    **{(f"{home}.multiarray", "_reconstruct"): _reconstruct for home in _NUMPY},
    **{(f"{home}.multiarray", "scalar"): _scalar for home in _NUMPY},
    **{(f"{home}.numeric", "_frombuffer"): _from_buffer for home in _NUMPY},
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    ("builtins", "bytes"): _no_bytes,
}


class _Reader(pickle.Unpickler):
    """An unpickler that knows the recorders and nothing else."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - one of the recorders
        try:
            return _ADMITTED[module, name]
        except KeyError:
            text = f"asks for '{module}.{name}', which is not data; it may be hostile: do not use it"
            raise DataError(text) from None


def _plain(value: Any, known: dict[int, Any] | None = None) -> Any:  # noqa: ANN401 - a tree of data
    """Replace recorders by arrays and keys in bytes by text, in a tree of data.

    Args:
        value: the tree.
        known: the results for the lists and dicts seen so far, by their ``id``. A small pickle may name one list many
            times, in lists that it names many times.

    Raises:
        DataError: the tree has an object of another type.
    """
    known = {} if known is None else known
    if isinstance(value, _Array):
        return value.array()
    if isinstance(value, dict | list | tuple):
        if id(value) not in known:
            known[id(value)] = _branch(value, known)
        return known[id(value)]
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | bytearray):
        return value
    raise DataError(f"holds a {type(value).__name__}, which is not data; it may be hostile: do not use it")


def _branch(value: Any, known: dict[int, Any]) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        texts = {key.decode("latin1") if isinstance(key, bytes) else key: item for key, item in value.items()}
        return {key: _plain(item, known) for key, item in texts.items()}
    return type(value)(_plain(item, known) for item in value)
