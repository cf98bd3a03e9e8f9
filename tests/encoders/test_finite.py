"""Features that are no numbers: refused wherever they would become an answer, with the image or the encoder named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Generator, Tensor, nn

from metarep.cli import main
from metarep.cli.options import print_json
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.data.tasks import draw_tasks
from metarep.encoders import Encoder, Preprocess, build_encoder
from metarep.errors import DataError, MetarepError
from metarep.experiments.measurement.evaluation import evaluate
from metarep.experiments.pseudo_labels import features_of
from metarep.learners import GradientDescent, Prototypes
from metarep.model.classifier import FewShotClassifier
from metarep.model.gallery import Gallery
from metarep.model.model import Model
from metarep.weights.named import load_representation

PLAIN = Preprocess((8, 8), 3, (0.0,) * 3, (1.0,) * 3)


class Brightness(nn.Module):
    """The logarithm of the mean colour: NaN or infinite for black images alone."""

    def __init__(self, black: float) -> None:
        super().__init__()
        self.weight, self.black = nn.Parameter(torch.ones(3)), black

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3)) * self.weight
        return torch.where(mean == 0, torch.tensor(self.black), mean)


def photographs(black: tuple[int, ...] = ()) -> np.ndarray:
    """Twelve noisy images, some of them black."""
    images = np.random.default_rng(0).integers(50, 256, (12, 8, 8, 3), dtype=np.uint8)
    images[list(black)] = 0
    return images


LABELS = [0, 1] * 6


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "NaN"), (float("inf"), "infinity")])
def test_an_image_without_features_is_named(value: float, word: str) -> None:
    encoder = Encoder(Brightness(value), PLAIN)
    said = rf"gets features that are not finite \({word}\) from the encoder Brightness"
    with pytest.raises(DataError, match=f"image 7 {said}, and so do 1 more; leave them out"):
        FewShotClassifier(encoder, batch_size=5).fit(photographs((7, 8)), LABELS)
    fitted = FewShotClassifier(encoder).fit(photographs(), LABELS)
    for ask in (fitted.predict, fitted.predict_proba, fitted.known, fitted.transform, fitted.answer):
        with pytest.raises(DataError, match=f"image 11 {said}; leave it out"):
            ask(photographs((11,)))
    bank = ImageBank.from_arrays(photographs((3,)))
    tasks = draw_tasks(Labels.of(LABELS), 5, ways=2, shots=1, queries=5, generator=Generator().manual_seed(0))
    with pytest.raises(DataError, match=f"image 3 of moths/test {said}"):
        evaluate(Prototypes(encoder), bank, tasks, split="moths/test")
    with pytest.raises(DataError, match=f"image 3 {said}"):
        features_of(Prototypes(encoder), bank)


def test_an_encoder_with_nan_is_distinguished_from_an_image_with_nan() -> None:
    lost = Encoder(Brightness(0.0), PLAIN)
    with torch.no_grad():
        dict(lost.body.named_parameters())["weight"][1] = float("nan")
    said = r"the encoder Brightness has weights that are not finite \(weight\), so its features mean nothing"
    with pytest.raises(MetarepError, match=said) as raised:
        FewShotClassifier(lost).fit(photographs(), LABELS)
    assert not isinstance(raised.value, DataError), "no image is to blame"
    bank = ImageBank.from_arrays(photographs())
    tasks = draw_tasks(Labels.of(LABELS), 5, ways=2, shots=1, queries=5, generator=Generator().manual_seed(0))
    with pytest.raises(MetarepError, match=said):
        evaluate(Prototypes(lost), bank, tasks)
    learner = Prototypes(build_encoder("conv4", Preprocess((28, 28), 1, (0.0,), (1.0,))))
    with torch.no_grad():
        list(learner.encoder.parameters())[9][3, 0, 0, 0] = torch.nan  # a maximum passes over it: features are finite
    with pytest.raises(MetarepError, match=r"the encoder conv4 has weights that are not finite \(3\.0\.weight\)"):
        evaluate(learner, ImageBank.from_arrays(np.zeros((12, 28, 28), dtype=np.uint8)), tasks)
    overflowing = Encoder(nn.Sequential(nn.Flatten(), Times(1e30), Times(1e30)), PLAIN)
    with pytest.raises(
        MetarepError, match="Sequential gives features that are not finite for any image; they may overflow"
    ):
        FewShotClassifier(overflowing).fit(photographs(), LABELS)


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def test_a_mask_of_infinities_is_not_a_broken_weight() -> None:
    """As attention has it: the image is to blame, not the buffer."""
    body = Brightness(float("nan"))
    body.register_buffer("mask", torch.full((3,), -torch.inf))
    with pytest.raises(DataError, match="image 2 "):
        FewShotClassifier(Encoder(body, PLAIN)).fit(photographs((2,)), LABELS)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_third_party_features_are_checked(value: float) -> None:
    features = np.random.default_rng(0).normal(size=(12, 4))
    lost = features.copy()
    lost[5:7, 2] = value
    said = r"row 5 of 12 rows of features holds NaN or infinity \(2 rows do\)"
    with pytest.raises(DataError, match=said):
        FewShotClassifier().fit(lost, LABELS)
    fitted = FewShotClassifier().fit(features, LABELS)
    for ask in (fitted.predict, fitted.predict_proba, fitted.known, fitted.transform, fitted.kneighbors):
        with pytest.raises(DataError, match=said):
            ask(lost.tolist())
    with pytest.raises(DataError, match=said):
        Model(None, {"name": "prototypes"}).prepare(lost)


def test_scores_that_are_not_finite_are_refused() -> None:
    features = np.random.default_rng(0).normal(size=(12, 4))
    fitted = FewShotClassifier().fit(features, LABELS)
    features[9] = 1e200  # its square is not finite
    with pytest.raises(DataError, match="image 9 of 12 gets scores that are not finite from Prototypes"):
        fitted.predict(features)
    rows = torch.tensor([[1.0, 0], [float("nan"), 0]])  # as a model has it that was fitted by an older metarep
    old = Model(None, {"name": "prototypes"}, Gallery.empty().add(rows, ["a", "b"], ["a.jpg", "b.jpg"]))
    with pytest.raises(DataError, match=r"b\.jpg gets features that are not finite"):
        old.answer(torch.zeros(1, 2))


def test_logits_that_are_not_finite_are_refused_in_an_evaluation(
    drawings: tuple[Split, Split], small_encoder: Any
) -> None:
    split = drawings[1]
    tasks = draw_tasks(split.labels, 4, ways=2, shots=1, queries=2, generator=Generator().manual_seed(0))
    large = Prototypes(Encoder(nn.Sequential(nn.Flatten(), Times(1e25)), Preprocess((20, 20), 1, (0.0,), (1.0,))))
    with pytest.raises(MetarepError, match=r"the logits of 4 of 4 tasks are NaN or infinite.* prototypes diverges on"):
        evaluate(large, split.bank, tasks)
    learner = GradientDescent(small_encoder(), scope="all", steps=1)  # which prepares images, not features
    with torch.no_grad():
        next(learner.encoder.parameters()).fill_(float("nan"))
    with pytest.raises(MetarepError, match=r"the encoder conv4 has weights that are not finite \(0\.0\.weight\)"):
        evaluate(learner, split.bank, tasks)


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"ci95": float("nan"), "all": [1.5, (float("inf"), "x", True, None)]})
    assert json.loads(capsys.readouterr().out) == {"ci95": None, "all": [1.5, [None, "x", True, None]]}


@pytest.fixture
def dark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``photos/a`` and ``photos/b`` are bright, ``dark.png`` is black; ``log.onnx`` has no features for black."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["m"]), helper.make_node("Log", ["m"], ["y"])]
    ends = [("x", ["b", 3, 9, 9]), ("y", ["b", 3, 1, 1])]
    x, y = (helper.make_tensor_value_info(name, kind, shape) for name, shape in ends)
    model = helper.make_model(helper.make_graph(nodes, "log", [x], [y]), ir_version=8)
    model.opset_import[0].version = 17
    onnx.save(model, str(tmp_path / "log.onnx"))
    monkeypatch.chdir(tmp_path)
    for number in range(6):
        bright = np.random.default_rng(number).integers(180, 256, (9, 9, 3), dtype=np.uint8)
        place = Path("photos", "ab"[number % 2])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(bright).save(place / f"{number}.png")
    Image.new("RGB", (9, 9)).save("dark.png")
    return tmp_path


@pytest.mark.slow
@pytest.mark.filterwarnings("always::metarep.data.datasets.options.LeftOutWarning")
def test_the_command_line_names_the_image(dark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*argv: str) -> str:
        assert main(list(argv)) == 2
        said = capsys.readouterr()
        assert "NaN" not in said.out
        return said.err.strip().splitlines()[-1]

    lost = "dark.png gets features that are not finite (NaN) from the encoder onnx"
    assert main(["fit", "photos", "--out", "model", "--encoder", "log.onnx"]) == 0
    for command in (("predict", "model", "dark.png", "--json"), ("add", "model", "dark.png", "--to", "a")):
        assert lost in told(*command)
    assert main(["index", "build", "index", "photos", "--encoder", "log.onnx"]) == 0
    assert lost in told("search", "index", "dark.png")
    (dark / "dark.png").rename(dark / "photos" / "a" / "dark.png")
    assert lost in told("fit", "photos", "--out", "other", "--encoder", "log.onnx")
    assert not (dark / "other").exists()
    assert lost in told("index", "build", "index", "photos", "--encoder", "log.onnx")
    assert main(["index", "build", "index", "photos", "--encoder", "log.onnx", "--skip-bad"]) == 0
    said = capsys.readouterr()
    assert "dark.png gets features" in said.err
    assert "6 images in index" in said.out
    bare = build_encoder("conv4", Preprocess((28, 28), 3, (0.0,) * 3, (1.0,) * 3)).body.state_dict()
    bare["0.0.weight"][0, 0, 0, 0] = float("nan")
    save_file({name: value.contiguous() for name, value in bare.items()}, "lost.safetensors")
    said = told("fit", "photos", "--out", "other", "--encoder", "lost.safetensors", "--arch", "conv4")
    assert "the encoder conv4 has weights that are not finite (0.0.weight)" in said


@pytest.mark.slow
def test_the_server_names_the_image_and_answers_the_others(dark: Path) -> None:
    pytest.importorskip("fastapi")
    from metarep.app.batcher import Batcher
    from metarep.model.folder import ModelFolder

    batcher = Batcher(ModelFolder.create(dark / "model", Model(load_representation("log.onnx"))), wait=0.2)
    black, bright = torch.zeros(1, 3, 9, 9, dtype=torch.uint8), torch.full((1, 3, 9, 9), 250, dtype=torch.uint8)
    asked = [batcher.submit(each, lambda _, rows: len(rows), ["mine.png"]) for each in (bright, black, bright)]
    batcher.start()
    assert [asked[0].result(20), asked[2].result(20)] == [1, 1]
    with pytest.raises(DataError, match=r"mine\.png gets features"):
        asked[1].result(20)
    batcher.stop()
