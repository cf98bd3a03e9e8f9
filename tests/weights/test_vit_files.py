"""Files of published vision transformers: every layout is recognised and gives the features of its own library."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from vits import PUBLISHED

from metarep.encoders import ViT
from metarep.errors import MetarepError
from metarep.weights.named import load_representation
from metarep.weights.vit import open_vit

META = (
    ("class_token", "cls_token"), ("positions", "pos_embed"), ("patch.", "patch_embed.proj."),
    ("attention.qkv", "attn.qkv"), ("attention.out", "attn.proj"), ("mlp.up", "mlp.fc1"), ("mlp.down", "mlp.fc2"),
    ("scale1", "ls1.gamma"), ("scale2", "ls2.gamma"), ("registers", "storage_tokens"), ("norm_first", "norm_pre"),
)  # fmt: skip
OPENAI = (
    ("class_token", "class_embedding"), ("positions", "positional_embedding"), ("patch.", "conv1."),
    ("blocks.", "transformer.resblocks."), ("attention.qkv.", "attn.in_proj_"), ("attention.out", "attn.out_proj"),
    ("mlp.up", "mlp.c_fc"), ("mlp.down", "mlp.c_proj"), ("norm1", "ln_1"), ("norm2", "ln_2"),
    ("norm_first", "ln_pre"), ("project.weight", "proj"),
)  # fmt: skip
IMAGENET, CLIP_MEAN = (0.485, 0.456, 0.406), (0.48145466, 0.4578275, 0.40821073)
SMALL = {"width": 128, "depth": 2, "heads": 2, "patch": 8, "grid": 4}


def published(names: Any, prefix: str = "", **settings: Any) -> tuple[ViT, dict[str, Tensor]]:
    """A network, and its weights by published names."""
    torch.manual_seed(0)
    body = ViT(3, **{**SMALL, **settings}).eval()
    state = {}
    for name, value in body.state_dict().items():
        for own, theirs in names:
            name = name.replace(own, theirs)
        name = "ln_post." + name.removeprefix("norm.") if names is OPENAI and name.startswith("norm.") else name
        tokens = name in ("cls_token", "pos_embed", "storage_tokens")
        value = value.view(1, *[1] * (2 - value.ndim), *value.shape) if tokens else value
        state[prefix + name] = (value.mT if name == "proj" else value).clone(memory_format=torch.contiguous_format)
    return body, state


def made(kind: str) -> tuple[ViT, dict[str, Tensor]]:
    """One of each kind, as their authors save it, with what else is in the file."""
    if kind == "CLIP":
        form = {"norm_first": True, "patch_bias": False, "project": 32, "activation": "quick-gelu", "eps": 1e-5}
        body, state = published(OPENAI, "visual.", **form)
        return body, state | {"token_embedding.weight": torch.zeros(5, 8), "logit_scale": torch.ones(())}
    form = {
        "DINOv2": {"layer_scale": 0.3},
        "DINOv3": {"layer_scale": 0.3, "positions": "rope", "registers": 4},
        "CLIP as a classifier": {"norm_first": True, "patch_bias": False},
        "no class token": {"class_token": False, "features": "mean"},
        "rotary without registers": {"layer_scale": 0.3, "positions": "rope"},
        "rotary beside learned": {"layer_scale": 0.3},
        "CLIP with pooling": {"norm_first": True},
    }
    body, state = published(META, **form.get(kind, {}), eps=1e-5 if kind == "DINOv3" else 1e-6)
    if kind == "MAE":
        body.positions.data[0] = 0
        state["pos_embed"][:, 0] = 0
        state |= {"decoder_embed.weight": torch.zeros(3, 3), "mask_token": torch.zeros(1, 1, 3)}
    if kind == "DINOv3":
        state |= {"rope_embed.periods": torch.ones(16), "blocks.0.attn.qkv.bias_mask": torch.ones(384)}
    if kind == "rotary beside learned":  # timm's rope_ape: no position of the class token
        state["pos_embed"] = state["pos_embed"][:, 1:]
        state = {name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): v for name, v in state.items()}
    if kind == "learned rotary":
        state["rope.freqs"] = torch.zeros(2, 2, 8)
    if kind == "two class tokens":
        state["cls_token"] = state["cls_token"].repeat(1, 2, 1)
    if kind == "CLIP with pooling":
        state |= {"attn_pool.latent": torch.zeros(1, 1, 128)}
    if kind in ("supervised", "CLIP as a classifier"):
        state |= {"head.weight": torch.zeros(7, 128), "head.bias": torch.ones(7)}
    return body, state


@pytest.mark.parametrize(
    ("kind", "arch", "size", "mean"),
    [
        ("DINO", None, 32, IMAGENET),
        ("MAE", None, 32, IMAGENET),
        ("DINOv2", None, 224, IMAGENET),
        ("DINOv3", None, 224, IMAGENET),
        ("CLIP", "clip", 32, CLIP_MEAN),
    ],
)
def test_a_layout_is_told_from_names_and_shapes(
    kind: str, arch: str | None, size: int, mean: tuple[float, ...], tmp_path: Path
) -> None:
    body, state = made(kind)
    save_file(state, tmp_path / "a.safetensors")
    torch.save({"model": state, "epoch": 7}, tmp_path / "a.pth")
    x = torch.randn(2, 3, 32, 32)
    for path in (tmp_path / "a.safetensors", tmp_path / "a.pth"):
        found = load_representation(path, arch=arch)
        assert found.name.startswith(f"{path.name} ({kind} ViT-128/8, 2 blocks, ")
        assert found.encoder.preprocess.size == (size, size)
        assert found.encoder.preprocess.mean == mean
        assert found.encoder.arch["layout"] == kind
        with torch.no_grad():
            torch.testing.assert_close(found.encoder.body(x), body(x))
    found.save(tmp_path / "own.safetensors")  # and needs the file no more
    (tmp_path / "a.pth").unlink()
    again = load_representation(tmp_path / "own.safetensors")
    assert (again.digest, again.name) == (found.digest, found.name)
    both = load_representation(tmp_path / "a.safetensors", arch=f"{arch or 'vit'}:both", size=64)
    assert both.encoder.dim == 2 * found.encoder.dim


def test_a_file_on_the_hub_says_what_was_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(made("DINO")[1], tmp_path / "model.safetensors")
    fetched = SimpleNamespace(weights=tmp_path / "model.safetensors", name="hf:ann/vit@0a1b2c3")
    monkeypatch.setattr("metarep.weights.named.fetch", lambda _: fetched)
    found = load_representation("hf:ann/vit", arch="vit:both")
    layout = "DINO ViT-128/8, 2 blocks, positions of 4 x 4 patches, gelu"
    assert (found.name, found.layout) == (f"hf:ann/vit@0a1b2c3 ({layout}, features both)", layout)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("CLIP", {}, r"files do not say which activation .*; take arch='clip' .*, or arch='open-clip'"),
        ("supervised", {}, "does not say how its images were normalised; in Python, load_representation takes mean"),
        ("CLIP as a classifier", {"arch": "clip"}, "layout is CLIP, fine-tuned, and the file does not say how its im"),
        ("rotary without registers", {}, "it has neither positions nor registers"),
        ("rotary beside learned", {}, "its names are those of DeiT III and of networks with rotary positions beside"),
        ("learned rotary", {}, "its weight rope.freqs belongs to no vision transformer that is known"),
        ("two class tokens", {}, r"its class token has the shape \(1, 2, 128\), as in no network that is known"),
        ("CLIP with pooling", {"arch": "open-clip"}, "a norm before its blocks, as CLIP, and pooling by attention"),
        ("no class token", {}, "layout is unknown, and the file does not say how its images were normalised"),
        ("DINO", {"size": 30}, "images of 30 x 30 px do not divide into patches of 8 px; take a size of 32"),
        ("DINO", {"arch": "vit:some"}, "unknown kind of features 'some'"),
    ],
)
def test_what_the_file_does_not_say_is_asked(kind: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    save_file(made(kind)[1], tmp_path / "a.safetensors")
    with pytest.raises(MetarepError, match=message):
        load_representation(tmp_path / "a.safetensors", **options)


OFFSET = ("dino, pth", "dinov2, timm", "dinov2 giant, timm")  # its authors resample positions otherwise than timm


class Evil:
    def __reduce__(self) -> Any:
        return print, ("run",)


def hostile(kind: str) -> Any:
    state: dict[str, Any] = made("DINO")[1]
    if kind == "code":
        state["evil"] = Evil()
    if kind == "huge":
        state["norm.weight"] = torch.zeros(1).expand(10**10)
    if kind == "unknown":
        state["blocks.0.adapter.weight"] = torch.zeros(3)
    if kind == "missing":
        del state["blocks.1.norm1.weight"]
    if kind == "shape":
        state["blocks.1.norm1.weight"] = torch.zeros(3)
    if kind == "positions":
        state["pos_embed"] = torch.zeros(1, 12, 128)
    if kind == "nan":
        state["norm.weight"][0] = torch.nan
    return [state] if kind == "list" else {"x": torch.zeros(3)} if kind == "other" else state


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("code", "holds Python objects besides tensors, which may run code"),
        ("huge", "norm.weight is not a plain tensor of numbers"),
        ("unknown", r"its weight blocks\.0\.adapter\.weight belongs to no vision transformer"),
        ("missing", r"not a whole vision transformer: blocks\.1\.norm1\.weight is missing"),
        ("shape", r"body\.blocks\.1\.norm1\.weight has the shape \(3,\); it should have \(128,\)"),
        ("positions", "its 12 positions are not those of a square image"),
        ("nan", "weights that are not finite"),
        ("list", "holds a list and not a dictionary of tensors"),
        ("other", "has no patches and blocks"),
        ("text", "not a zip of torch.save"),
        ("program", "is a TorchScript program, as OpenAI publishes CLIP"),
    ],
)
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_file_of_a_stranger_is_refused_in_one_line(
    kind: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.pth"
    if kind == "text":
        path.write_bytes(b"nothing")
    elif kind == "program":
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)
    else:
        torch.save(hostile(kind), path)
    with pytest.raises(MetarepError, match=message) as raised:
        load_representation(path)
    assert "\n" not in str(raised.value)
    assert capsys.readouterr().out == ""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_layout_gives_the_features_of_its_library(name: str, tmp_path: Path) -> None:
    maker, arch, recognised = PUBLISHED[name]
    expected = maker(tmp_path)
    (path,) = [file for file in tmp_path.iterdir() if file.suffix in (".safetensors", ".pth")]
    encoder, layout = open_vit(path, arch=arch, size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert layout.name == recognised
    assert layout.in_words.startswith(recognised)
    sizes = (32,) if "open_clip" in name or name in OFFSET else (24, 32, 48)
    for dtype, size in [(dtype, size) for dtype in (torch.float32, torch.float64) for size in sizes]:
        # The libraries compute resampled positions, and the angles of DINOv3, in float32.
        precise = 1e-6 if size != 32 or layout.name == "DINOv3" else 1e-10
        close = 1e-5 if dtype == torch.float32 else precise
        x = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=dtype)
        with torch.no_grad():
            want, got = expected(x), encoder.body.to(dtype)(x)
        torch.testing.assert_close(got, want, rtol=close, atol=close * float(want.abs().max()))
