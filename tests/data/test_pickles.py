"""The reader of pickles: every honest array comes through, nothing is ever called."""

import collections
import datetime
import io
import pickle
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarep.data.datasets.pickles import read_pickle
from metarep.errors import DataError

ARRAYS = [
    np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(5, dtype=">i4"),
    np.array([True, False]),
    np.array(["apple", "sea"]),
    np.array([b"apple", b"sea"]),
    np.zeros((0, 3), dtype=np.int64),
    np.arange(10, dtype=np.int16)[::2],
]


def read(content: bytes) -> Any:
    return read_pickle(io.BytesIO(content), "batch.pkl")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays_are_read(array: np.ndarray, protocol: int) -> None:
    found = read(pickle.dumps({"data": [array]}, protocol=protocol))["data"][0]
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_is_read(protocol: int) -> None:
    data = {"a": [1, 2.5, None, True, "text", b"bytes", b"", (1, (2,))], 3: {"deep": [{}]}, "n": np.float32(0.5)}
    assert read(pickle.dumps(data, protocol=protocol)) == data


def test_python_2_wrote_it() -> None:
    """What Python 2's numpy made of {'data': array([7, 9], uint8), 'names': ['apple']} at protocol 2."""
    content = (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85"
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\x07\x09tb"
        b"U\x05names]U\x05appleau."
    )
    found = read(content)
    assert found["data"].tolist() == [7, 9]
    assert found["names"] == [b"apple"]


class Call:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "hostile",
    [
        Call(open, "hostile", "w"),
        Call(eval, "open('hostile', 'w')"),
        Call(subprocess.run, ["touch", "hostile"]),
        Call(np.fromfile, "batch.pkl"),
        Call(getattr, "text", "encode"),
        datetime.date(2015, 10, 21),
        collections.OrderedDict(a=1),
        {1, 2},
        np.array([{}], dtype=object),
        np.array([(1, 2)], dtype="i4,i4"),
        np.array(["2015-10-21"], dtype="datetime64"),
        np.ndarray,
        pickle.loads,
    ],
)
def test_anything_else_is_refused_and_not_run(
    hostile: object, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"batch\.pkl"):
        read(pickle.dumps({"data": [hostile]}, protocol=protocol))
    assert not (tmp_path / "hostile").exists()


def test_a_codec_is_not_a_way_in() -> None:
    with pytest.raises(DataError, match=r"'rot13'.*hostile"):
        read(b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.")


def test_a_lying_shape_reads_nothing_beyond_the_bytes() -> None:
    content = pickle.dumps(np.zeros(4, np.uint8), protocol=2)
    with pytest.raises(DataError, match="damaged"):
        read(content.replace(b"K\x04\x85", b"K\x09\x85"))


def test_every_truncation_is_an_error_of_ours() -> None:
    content = pickle.dumps({"data": ARRAYS[0], "labels": list(range(5))}, protocol=2)
    for length in range(len(content)):
        with pytest.raises(DataError, match=r"batch\.pkl"):
            read(content[:length])
