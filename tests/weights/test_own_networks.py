"""Networks of one's own, straight into the classifier: whatever they return, in any type, and what can be saved."""

import copy
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import Tensor, nn

from metarep.encoders import Encoder, Preprocess, build_encoder
from metarep.errors import MetarepError
from metarep.model.classifier import FewShotClassifier
from metarep.model.model import Model
from metarep.search.image_index import ImageIndex
from metarep.weights.named import load_representation
from metarep.weights.own_network import represent

TOLD = {"size": 16, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.3)}
IMAGES = np.random.default_rng(0).integers(0, 256, (10, 3, 16, 16), dtype=np.uint8)
LABELS = list("abababbaba")


class Net(nn.Module):
    """A small network as tutorials have it: it flattens its maps with ``view``, and drops out while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.Dropout(0.5)
        self.linear = nn.Linear(6 * 7 * 7, 8)

    def maps(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)))

    def forward(self, x: Tensor) -> Any:
        return self.linear(self.drop(self.maps(x).view(len(x), -1)))


class Told(Net):
    """As timm's networks, which say how they want their images."""

    def __init__(self) -> None:
        super().__init__()
        sides = (3, TOLD["size"], TOLD["size"])
        self.pretrained_cfg = {"mean": TOLD["mean"], "std": TOLD["std"], "input_size": sides, "fixed_input_size": True}


class ModelOutput(OrderedDict[str, Any]):
    """As transformers' own: a dictionary, whose fields may be None."""


class Pooler(Net):
    """As ViT of transformers."""

    def forward(self, x: Tensor) -> Any:
        maps = self.maps(x)
        tokens = maps.flatten(2).mT
        return ModelOutput(last_hidden_state=tokens, pooler_output=tokens[:, 0], hidden_states=None)


class PoolerMap(Net):
    """As ResNet of transformers, whose pooler leaves two axes of one."""

    def forward(self, x: Tensor) -> Any:
        maps = self.maps(x)
        return ModelOutput(last_hidden_state=maps, pooler_output=maps.mean((2, 3), keepdim=True))


class Single(Net):
    def forward(self, x: Tensor) -> Any:
        return (self.maps(x).mean((2, 3)),)


class Mean(nn.Module):
    """Without parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class Solid(Net):
    """With a parameter of five axes, which has no channels-last."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.ones(1, 1, 1, 1, 8))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.kernel.flatten()


class Case(NamedTuple):
    """A body, and what its features are by hand."""

    make: Callable[[], nn.Module]
    features: Callable[[nn.Module, Tensor], Tensor] = lambda net, x: net(x)
    close: float = 1e-5


BODIES = {
    "view": Case(Net),
    "pretrained_cfg": Case(Told),
    "pooler": Case(Pooler, lambda net, x: net(x)["pooler_output"]),
    "pooler map": Case(PoolerMap, lambda net, x: net(x)["pooler_output"].flatten(1)),
    "tuple of one": Case(Single, lambda net, x: net(x)[0]),
    "without parameters": Case(Mean),
    "five axes": Case(Solid),
    "float64": Case(lambda: Net().double(), lambda net, x: net(x.double()).float()),
    "half": Case(lambda: Net().half(), lambda net, x: net(x.half()).float(), 1e-2),
    "bfloat16": Case(lambda: Net().bfloat16(), lambda net, x: net(x.bfloat16()).float(), 5e-2),
    "parallel": Case(lambda: nn.DataParallel(Net())),
    "lambda inside": Case(lambda: nn.Sequential(Net(), Lambda(lambda x: x * 2))),
}


class Lambda(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize("name", BODIES)
def test_a_body_of_ones_own(name: str) -> None:
    torch.manual_seed(0)
    case = BODIES[name]
    net = case.make().train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    told = {} if name == "pretrained_cfg" else TOLD
    fitted = FewShotClassifier(net, learner="prototypes", **told).fit(IMAGES, LABELS)
    assert all(module.training for module in net.modules()), "it may be in the middle of a training"
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])
        assert value.stride() == before[key].stride()
    mean, std = (torch.tensor(TOLD[key]).view(3, 1, 1) for key in ("mean", "std"))
    x = (torch.from_numpy(IMAGES).float() / 255 - mean) / std
    with torch.no_grad():
        want = case.features(copy.deepcopy(net).eval(), x)
    got = fitted.transform(IMAGES)
    assert got.dtype == np.float32
    assert np.abs(got - want.numpy()).max() < case.close * max(1.0, float(want.abs().max()))
    assert (
        np.array_equal(fitted.transform(IMAGES[:1]), got[:1])
        or case.close > 1e-5
        or np.allclose(fitted.transform(IMAGES[:1]), got[:1], atol=1e-5)
    )
    assert len(fitted.model_.representation.digest) == 16
    others = [copy.deepcopy(fitted), clone(fitted).fit(IMAGES, LABELS)]
    if name != "lambda inside":  # Python says so itself
        others.append(pickle.loads(pickle.dumps(fitted)))
    for other in others:
        assert np.array_equal(other.predict_proba(IMAGES), fitted.predict_proba(IMAGES))


@pytest.mark.slow
def test_an_encoder_of_ones_own() -> None:
    encoder = Encoder(Net(), Preprocess((16, 16), 3, TOLD["mean"], TOLD["std"]))
    want = FewShotClassifier(encoder.body, **TOLD).fit(IMAGES, LABELS).predict_proba(IMAGES)
    for model in (Model(encoder), Model(represent(encoder)), Model(load_representation(encoder))):
        rows = model.prepare(IMAGES)
        fitted = model.changed(model.gallery.add(rows, LABELS, LABELS))
        assert [each.probabilities["a"] for each in fitted.answer(rows)] == pytest.approx(want[:, 0].tolist(), abs=1e-5)
    assert FewShotClassifier(encoder).fit(IMAGES, LABELS).predict_proba(IMAGES) == pytest.approx(want, abs=1e-5)
    assert Model(Told()).learner.encoder.preprocess == encoder.preprocess
    ours = build_encoder("conv4", Preprocess((16, 16), 3, (0.0,) * 3, (1.0,) * 3), width=4)
    assert not represent(ours).own
    compiled = Mean()  # as torch.compile makes it: another module that holds the network
    compiled._orig_mod = nn.DataParallel(Net())
    inside = represent(compiled, **TOLD)
    assert (inside.name, type(inside.encoder.body)) == ("Net", Net)


class Gives(nn.Module):
    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(x)


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (Net(), {}, r"Net does not say which images it expects; give mean and std and size, as in mean=\(0\.485"),
        (Net(), {"size": 16, "mean": (0.5,) * 3}, "give std, as in"),
        (Net(), {**TOLD, "mean": (0.5,)}, r"std must be a number for each of 1 channels, not \(0\.2, 0\.2, 0\.3\)"),
        (Net(), {**TOLD, "size": 20}, r"images of 20 x 20 px do not fit Net: mat1 and mat2 shapes"),
        (Net(), {**TOLD, "arch": "conv4"}, "arch is for a file of bare weights; Net is a module"),
        (Encoder(Mean(), Preprocess((8, 8), 1, (0,), (1,))), TOLD, "an Encoder has its own size, mean and std"),
        (
            Gives(lambda x: x),
            TOLD,
            r"\(1, 3, 16, 16\) for one image; .* that is a feature map: put nn\.AdaptiveAvgPool2d\(1\)",
        ),
        (Gives(lambda x: x.flatten(2)), TOLD, r"gives \(1, 3, 256\) .* a row for each token"),
        (
            Gives(lambda x: ModelOutput(last_hidden_state=x.flatten(2))),
            TOLD,
            r"Gives gives last_hidden_state \(1, 3, 256\) for one image; an encoder gives .*; that is a row for",
        ),
        (
            Gives(lambda x: (x.mean((2, 3)), x)),
            TOLD,
            r"gives a tuple for one image \(0 \(1, 3\), 1 \(1, 3, 16, 16\)\); .* wrap",
        ),
        (Gives(lambda _: None), TOLD, "gives a NoneType for one image; an encoder gives a tensor"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(network: nn.Module, options: dict[str, Any], message: str) -> None:
    with pytest.raises(MetarepError, match=message):
        load_representation(network, **options)


def test_mean_and_std_are_settings_of_third_party_networks() -> None:
    with pytest.raises(MetarepError, match="omniglot-protonet has its own, so leave them out"):
        load_representation("omniglot-protonet", mean=(0.0,), std=(1.0,))


def test_networks_of_timm_say_how_they_want_their_images(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = types.ModuleType("timm")
    timm.create_model = lambda name, **_: {"told": Told}[name]()
    monkeypatch.setitem(sys.modules, "timm", timm)
    representation = load_representation("timm:told")
    assert representation.encoder.preprocess == Preprocess((16, 16), 3, TOLD["mean"], TOLD["std"])
    assert not representation.own
    with pytest.raises(MetarepError, match="timm cannot make 'other'"):
        load_representation("timm:other")


def test_only_what_can_be_rebuilt_is_written(tmp_path: Path) -> None:
    with pytest.raises(
        MetarepError, match=r"Net is a module of your own, which cannot be written without pickle; \.portable"
    ):
        load_representation(Net(), **TOLD).save(tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_module_is_saved_as_a_graph(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    fitted = FewShotClassifier(Pooler().half(), **TOLD).fit(IMAGES, LABELS)
    fitted.save(tmp_path / "model")
    again = FewShotClassifier.load(tmp_path / "model")
    assert again.predict_proba(IMAGES) == pytest.approx(fitted.predict_proba(IMAGES), abs=1e-3)
    assert again.transform(IMAGES[:1]) == pytest.approx(fitted.transform(IMAGES[:1]), abs=1e-2)
    assert {path.suffix for path in (tmp_path / "model").iterdir()} == {".safetensors", ".md"}
    index = ImageIndex.create(tmp_path / "index", load_representation(Mean(), **TOLD))
    assert index.embedder.dim == 3
    choosing = Gives(lambda x: x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3)))
    with pytest.raises(
        MetarepError, match="Gives is a module of your own, which is saved as an ONNX graph, and torch cannot"
    ):
        FewShotClassifier(choosing, **TOLD).fit(IMAGES, LABELS).save(tmp_path / "other")
    assert not (tmp_path / "other").exists()


class Unsteady(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = x.flatten(1)[:, :8]
        return z - z.mean(0) if self.how == "batch" else z + torch.randn_like(z)


@pytest.mark.parametrize(("how", "says"), [("batch", "beside other images"), ("draws", "draws at random")])
def test_features_that_change_are_refused(how: str, says: str) -> None:
    with pytest.raises(MetarepError, match=says):
        FewShotClassifier(Unsteady(how), size=8, mean=(0.5,), std=(0.5,)).fit(np.zeros((2, 8, 8), np.uint8), ["a", "b"])
