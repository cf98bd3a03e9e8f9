"""ONNX graphs that a stranger may send: weights elsewhere, and tensors that would fill the memory."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_files


def open_graph(path: Path) -> object:
    from metarep.weights.named import load_representation

    return load_representation(path)


def graph(**more: Any) -> bytes:
    return onnx_files.graph(**more).SerializeToString()


def external(location: str, **more: Any) -> bytes:
    model = onnx_files.graph()
    for tensor in onnx_files.tensors_of(model):
        for key, value in {"location": location, **more}.items():
            tensor.external_data.add(key=key, value=str(value))
        tensor.ClearField("raw_data")
        tensor.data_location = 1
    return model.SerializeToString()


def filled(number: int) -> bytes:
    """A graph that makes a tensor of so many numbers."""
    import onnx

    helper = onnx.helper
    model = onnx.ModelProto()
    model.ParseFromString(graph())
    shape = onnx.numpy_helper.from_array(np.array([number]), "shape")
    model.graph.initializer.append(shape)
    model.graph.node.extend(
        [helper.make_node("ConstantOfShape", ["shape"], ["big"]), helper.make_node("ReduceSum", ["big"], ["sum"])]
    )
    model.graph.node[1].output[0] = "z"
    model.graph.node.append(helper.make_node("Add", ["z", "sum"], ["y"]))
    return model.SerializeToString()


def claimed(*dims: int) -> bytes:
    """A graph whose weights claim other dimensions than they have."""
    model = onnx_files.graph()
    (tensor,) = onnx_files.tensors_of(model)
    tensor.ClearField("dims")
    tensor.dims.extend(dims)
    return model.SerializeToString()


ONNX: Mapping[str, Callable[[], bytes]] = {
    "weights of another folder": lambda: external("../../etc/passwd"),
    "weights of an absolute name": lambda: external("/etc/passwd"),
    "weights that are not there": lambda: external("weights.bin"),
    "weights at an offset below 0": lambda: external("x.onnx", offset=-5, length=5),
    "weights at 10^18": lambda: external("x.onnx", offset=10**18),
    "weights of 10^18 bytes": lambda: external("x.onnx", offset=0, length=10**18),
    "weights whose offset is a text": lambda: external("x.onnx", offset="a"),
    "weights whose name has a NUL": lambda: external("a\0b"),
    "weights whose name is long": lambda: external("a" * 100_000),
    "weights of a folder": lambda: external("."),
    "weights that claim 10^12 numbers": lambda: claimed(10**6, 10**6, 1, 1),
    "weights that claim less than 0": lambda: claimed(-1, 3, 1, 1),
    "a batch of a billion": lambda: graph(shape=(10**9, 3, 8, 8)),
    "images of a billion pixels a side": lambda: graph(shape=("b", 3, 10**9, 10**9)),
    "a billion channels": lambda: graph(shape=("b", 10**9, 8, 8)),
    "a tensor of 10^12 numbers": lambda: filled(10**12),
    "deep messages": lambda: deep(1000),
    "nothing": lambda: b"",
    "zeros": lambda: bytes(1000),
    "a field of 2^63 bytes": lambda: b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    "a page": lambda: b"<html>not found</html>",
}


def deep(levels: int) -> bytes:
    """A model whose graph is in an attribute of a node of a graph, and so on."""
    message = b""
    for number in (*(6, 5, 1) * levels, 7):
        length, size = bytearray(), len(message)
        while size > 127:
            length.append(size & 127 | 128)
            size >>= 7
        message = bytes([number << 3 | 2, *length, size]) + message
    return message
