"""Small ONNX files for tests: a 1x1 convolution and the mean over the image, with weights inside or in files beside."""

from pathlib import Path
from typing import Any

import numpy as np

DIM = 5
WEIGHTS = np.random.default_rng(0).normal(size=(DIM, 3, 1, 1)).astype(np.float32)


def graph(shape: tuple[Any, ...] = ("b", 3, "h", "w"), *, place: str = "graph", weights: np.ndarray = WEIGHTS) -> Any:
    """An ONNX model; ``place`` says where its weights stand: in the graph, in a node, in a branch, or in a function."""
    import onnx

    helper, numbers = onnx.helper, onnx.numpy_helper.from_array(weights, "weights")
    kind = onnx.TensorProto.FLOAT
    x = helper.make_tensor_value_info("x", kind, shape)
    y = helper.make_tensor_value_info("y", kind, (shape[0], DIM, 1, 1))
    body = [helper.make_node("Conv", ["x", "weights"], ["map"]), helper.make_node("GlobalAveragePool", ["map"], ["y"])]
    constant = helper.make_node("Constant", [], ["weights"], value=numbers)
    functions, inside = [], []
    if place == "graph":
        inside = [numbers]
    elif place == "node":
        body = [constant, *body]
    elif place == "branch":
        then = helper.make_graph(
            [constant], "then", [], [helper.make_tensor_value_info("weights", kind, weights.shape)]
        )
        always = helper.make_node("Constant", [], ["always"], value=onnx.numpy_helper.from_array(np.array(True)))
        body = [always, helper.make_node("If", ["always"], ["weights"], then_branch=then, else_branch=then), *body]
    elif place == "function":
        opset = [helper.make_opsetid("", 17)]
        functions = [helper.make_function("own", "Weights", [], ["weights"], [constant], opset)]
        body = [helper.make_node("Weights", [], ["weights"], domain="own"), *body]
    made = helper.make_graph(body, "net", [x], [y], inside)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(made, ir_version=8, opset_imports=opsets, functions=functions)


def tensors_of(message: Any) -> list[Any]:
    """All tensors of a model, wherever they stand."""
    found = [message] if message.DESCRIPTOR.name == "TensorProto" else []
    for field, value in message.ListFields():
        if field.message_type is not None:
            found += [
                each for part in (value if not hasattr(value, "DESCRIPTOR") else [value]) for each in tensors_of(part)
            ]
    return found


def write(model: Any, path: Path, location: str = "", *, start: int = 0, **told: Any) -> Path:
    """Write a model; with ``location`` its float tensors go into that file, and the graph says so."""
    if location:
        data = bytearray(start)
        for tensor in tensors_of(model):
            if tensor.data_type != 1:
                continue
            entries = {"location": location, "offset": len(data), "length": len(tensor.raw_data), **told}
            for key, value in entries.items():
                if value is not None:
                    tensor.external_data.add(key=key, value=str(value))
            data += tensor.raw_data
            tensor.ClearField("raw_data")
            tensor.data_location = 1
        file = path.parent / location
        if not Path(location).is_absolute():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(bytes(data))
    path.write_bytes(model.SerializeToString())
    return path
