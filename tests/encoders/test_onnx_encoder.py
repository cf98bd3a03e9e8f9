"""ONNX encoders: files as others write them, hostile ones, any number of images, copies and pickles."""

import contextlib
import copy
import multiprocessing
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx_files import WEIGHTS, graph, tensors_of, write
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from torch import Tensor, nn

from metarep.data.reading.photographs import read_images
from metarep.encoders.onnx_graph import read_graph
from metarep.errors import MetarepError
from metarep.model.classifier import FewShotClassifier
from metarep.model.folder import ModelFolder
from metarep.weights.named import load_representation

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
IMAGES = torch.randint(256, (7, 3, 12, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def wanted(images: Tensor, weights: np.ndarray = WEIGHTS) -> Tensor:
    """The features of :func:`onnx_files.graph` by hand, under ImageNet's mean and deviation."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((images.float() / 255).mean((2, 3)) - mean) / std @ torch.from_numpy(weights[..., 0, 0]).T


def features(path: Path, **options: Any) -> Tensor:
    with torch.no_grad():
        return load_representation(path, size=(12, 10), **options).encoder(IMAGES)


@pytest.mark.parametrize("place", ["graph", "node", "branch", "function"])
@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("", {}),
        ("m.onnx.data", {}),
        ("parts/w.bin", {"start": 4096}),
        ("w", {"length": None}),
        ("w", {"offset": None}),
    ],
)
def test_weights_beside_a_graph_are_put_into_it(
    place: str, location: str, told: dict[str, Any], tmp_path: Path
) -> None:
    if place == "branch":
        told = {key: value for key, value in told.items() if value is not None}  # both branches hold a tensor
    path = write(graph(place=place), tmp_path / "m.onnx", location, **told)
    content = read_graph(path)
    kept = [
        onnx.numpy_helper.to_array(each) for each in tensors_of(onnx.load_from_string(content)) if each.data_type == 1
    ]
    assert len(kept) == (2 if place == "branch" else 1)
    assert all(np.array_equal(each, WEIGHTS) for each in kept)
    assert b"external" not in content
    onnx.checker.check_model(onnx.load_from_string(content))
    torch.testing.assert_close(features(path), wanted(IMAGES), rtol=1e-4, atol=1e-5)


def test_a_graph_without_files_is_kept_to_the_byte(tmp_path: Path) -> None:
    path = write(graph(place="branch"), tmp_path / "m.onnx")
    assert read_graph(path) == path.read_bytes()


def test_a_model_folder_needs_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor are weights read that happen to lie where it is run, as another's do here."""
    (tmp_path / "elsewhere").mkdir()
    write(graph(weights=-WEIGHTS), tmp_path / "elsewhere" / "m.onnx", "m.onnx.data")
    path = write(graph(), tmp_path / "m.onnx", "m.onnx.data")
    monkeypatch.chdir(tmp_path / "elsewhere")
    fitted = FewShotClassifier(str(path), size=12).fit(IMAGES.numpy(), list("abababa"))
    fitted.save(tmp_path / "model")
    for file in tmp_path.glob("m.onnx*"):
        file.unlink()
    again = FewShotClassifier.load(tmp_path / "model")
    assert np.array_equal(again.predict_proba(IMAGES.numpy()), fitted.predict_proba(IMAGES.numpy()))
    want = wanted(next(read_images(IMAGES.numpy(), again.model_.learner.encoder.preprocess)))
    assert again.transform(IMAGES.numpy()) == pytest.approx(want.numpy(), abs=1e-4)
    assert sorted(os.listdir(tmp_path / "model")) == ["README.md", "encoder.safetensors", "gallery.safetensors"]


def test_a_link_to_a_file_with_its_weights_is_followed(tmp_path: Path) -> None:
    """As in a cache of downloads, where names are links to files called by their digests."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "names").mkdir()
    write(graph(), tmp_path / "blobs" / "3f", "m.onnx.data")
    (tmp_path / "blobs" / "m.onnx.data").rename(tmp_path / "blobs" / "a0")
    (tmp_path / "names" / "m.onnx").symlink_to("../blobs/3f")
    (tmp_path / "names" / "m.onnx.data").symlink_to("../blobs/a0")
    torch.testing.assert_close(features(tmp_path / "names" / "m.onnx"), wanted(IMAGES), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("location", "told", "message"),
    [
        ("../secret", {}, r"wants weights from '\.\./secret', which is outside of its folder"),
        ("a/../../secret", {}, "outside of its folder"),
        ("SECRET", {}, "outside of its folder"),
        ("link", {}, "outside of its folder"),
        ("*/_ORT_MEM_ADDR_/*", {}, "is not beside it"),
        ("gone.data", {}, r"keeps its weights in gone\.data, which is not beside it; copy both files"),
        ("w.data", {"length": 61}, r"wants 61 bytes of w\.data from 0, and it has 60; copy it again"),
        ("w.data", {"offset": -4}, r"wants 60 bytes of w\.data from -4"),
        ("w.data", {"offset": "x"}, "is not an ONNX graph, or it is damaged"),
        ("", {"checksum": "00"}, "outside of its folder"),
    ],
)
def test_a_hostile_graph_reads_nothing_else(location: str, told: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(WEIGHTS.tobytes())
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    model = graph()
    path = write(model, folder / "m.onnx", "w.data", **told)
    for tensor in tensors_of(model):
        for entry in tensor.external_data:
            if entry.key == "location" and location != "w.data":
                entry.value = location.replace("SECRET", str(tmp_path / "secret"))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(MetarepError, match=message):
        load_representation(path)


def test_a_model_folder_cannot_name_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wrote the folder: onnxruntime would look where it is run."""
    monkeypatch.chdir(tmp_path)
    representation = load_representation(write(graph(), tmp_path / "m.onnx"), size=8)
    hostile = write(graph(), tmp_path / "m.onnx", "m.onnx.data").read_bytes()
    body = representation.encoder.body
    body.register_buffer("content", torch.frombuffer(bytearray(hostile), dtype=torch.uint8))
    representation.encoder.arch["size"] = len(hostile)
    representation.save(tmp_path / "encoder.safetensors")
    with pytest.raises(MetarepError, match=r"this ONNX graph wants weights from the file 'm\.onnx\.data'"):
        load_representation(tmp_path / "encoder.safetensors")


def test_damaged_graphs_are_clear_errors(tmp_path: Path) -> None:
    whole = write(graph(), tmp_path / "m.onnx", "m.onnx.data").read_bytes()
    generator = np.random.default_rng(0)
    for number in range(300):
        content = bytearray(whole)
        if number % 2:
            del content[generator.integers(len(content)) :]
        for _ in range(1 + number % 3):
            if content:
                content[generator.integers(len(content))] = generator.integers(256)
        (tmp_path / "m.onnx").write_bytes(bytes(content))
        with contextlib.suppress(MetarepError):
            read_graph(tmp_path / "m.onnx")


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_a_graph_with_a_fixed_batch_size_runs_in_parts(batch: int, tmp_path: Path) -> None:
    path = write(graph((batch, 3, 12, 10)), tmp_path / "m.onnx")
    torch.testing.assert_close(features(path), wanted(IMAGES), rtol=1e-4, atol=1e-5)


def test_size_and_channels_are_read_from_a_graph(tmp_path: Path) -> None:
    path = write(graph(("b", 3, 12, 10)), tmp_path / "m.onnx")
    assert load_representation(path).encoder.preprocess.size == (12, 10)
    with pytest.raises(MetarepError, match=r"takes images of 12 x 10 px, not 160 x 160; leave the size out"):
        load_representation(path, size=160)
    assert load_representation(write(graph(), path)).encoder.preprocess.size == (160, 160)
    own = load_representation(path, size=8, mean=(0.0,) * 3, std=(1.0,) * 3).encoder.preprocess
    assert (own.mean, own.std) == ((0, 0, 0), (1, 1, 1))
    grey = graph(("b", 1, 8, 8), weights=WEIGHTS[:, :1])
    assert load_representation(write(grey, path)).encoder.preprocess.mean == (0.485,)


def test_a_graph_that_is_not_an_encoder_is_a_clear_error(tmp_path: Path) -> None:
    helper, kind = onnx.helper, onnx.TensorProto

    def path(name: str, inputs: list[Any], node: list[Any], shape: list[Any]) -> Path:
        ends = [helper.make_tensor_value_info(called, of, size) for called, of, size in inputs]
        y = helper.make_tensor_value_info("y", kind.FLOAT, shape)
        scale = [onnx.numpy_helper.from_array(np.float32(1), "s")]
        made = helper.make_graph([helper.make_node(*node)], "net", ends, [y], scale)
        opsets = [helper.make_opsetid("", 17)]
        return write(helper.make_model(made, ir_version=8, opset_imports=opsets), tmp_path / name)

    images = ("x", kind.FLOAT, ["b", 3, 8, 8])
    for file, message in (
        (
            path("0.onnx", [images, ("z", kind.FLOAT, [1])], ["Add", ["x", "z"], ["y"]], ["b", 3, 8, 8]),
            r"inputs 'x', 'z'; an enc",
        ),
        (
            path(
                "1.onnx", [("x", kind.UINT8, ["b", 3, 8, 8])], ["DequantizeLinear", ["x", "s"], ["y"]], ["b", 3, 8, 8]
            ),
            r"takes tensor\(uint8\)",
        ),
        (
            path("2.onnx", [("x", kind.FLOAT, ["b", 8])], ["Relu", ["x"], ["y"]], ["b", 8]),
            r"an encoder takes \(b, c, h, w\)",
        ),
        (
            path("3.onnx", [("x", kind.FLOAT, ["b", 8, 8, 3])], ["Relu", ["x"], ["y"]], ["b", 8, 8, 3]),
            "put a Transpose in front",
        ),
        (
            path("4.onnx", [images], ["Relu", ["x"], ["y"]], ["b", 3, 8, 8]),
            r"gives 'y' of the shape \(1, 3, 8, 8\) for 1 images; its",
        ),
    ):
        with pytest.raises(MetarepError, match=message):
            load_representation(file)


def test_a_fitted_classifier_is_pickled_and_copied(tmp_path: Path) -> None:
    path = write(graph((4, 3, 12, 10)), tmp_path / "m.onnx")
    for encoder in (str(path), load_representation(path)):
        fitted = FewShotClassifier(encoder).fit(IMAGES.numpy(), list("abababa"))
        want = fitted.predict_proba(IMAGES.numpy())
        for other in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
            assert np.array_equal(other.predict_proba(IMAGES.numpy()), want)
        assert np.array_equal(clone(fitted).fit(IMAGES.numpy(), list("abababa")).predict_proba(IMAGES.numpy()), want)


def _features(encoder: nn.Module, out: Any) -> None:
    with torch.no_grad():
        out.put(encoder(IMAGES).numpy())


def test_a_fork_opens_the_graph_anew(tmp_path: Path) -> None:
    """The threads of the parent's session are not there in the child, which would wait for them for ever."""
    encoder = load_representation(write(graph(), tmp_path / "m.onnx"), size=(12, 10)).encoder
    encoder.body._open()
    context = multiprocessing.get_context("fork")
    out = context.SimpleQueue()
    child = context.Process(target=_features, args=(encoder, out), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that this process has threads is the point
        child.start()
    child.join(30)
    assert child.exitcode == 0
    assert out.get() == pytest.approx(wanted(IMAGES).numpy(), abs=1e-4)


@pytest.mark.slow
def test_two_processes_share_an_encoder(tmp_path: Path) -> None:
    path = write(graph((4, 3, 12, 10)), tmp_path / "m.onnx", "m.onnx.data")
    images = np.random.default_rng(0).integers(0, 256, (40, 12, 10, 3), dtype=np.uint8)
    images[20:] //= 3
    classifier = FewShotClassifier(load_representation(path))
    alone, shared = (cross_val_score(classifier, images, [0] * 20 + [1] * 20, cv=2, n_jobs=n) for n in (1, 2))
    assert shared.tolist() == alone.tolist()
    assert min(shared) >= 0.95


@pytest.mark.slow
def test_files_as_torch_writes_them(tmp_path: Path) -> None:
    """By its defaults: from 2.9 on, weights in ``FILE.onnx.data`` and one image a batch."""
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (torch.rand(1, 3, 12, 10),), str(tmp_path / "net.onnx"), verbose=False)
    assert (tmp_path / "net.onnx.data").is_file()
    representation = load_representation(tmp_path / "net.onnx")
    with torch.no_grad():
        want = net(representation.encoder.preprocess(IMAGES))
        torch.testing.assert_close(representation.encoder(IMAGES), want, rtol=1e-4, atol=1e-5)
    folder = ModelFolder.create(tmp_path / "model", FewShotClassifier(representation)._fresh(False))
    assert folder.representation.encoder.dim == 8
