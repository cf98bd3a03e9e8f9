"""Vision transformers of transformers and timm with random weights, saved as they are published: oracles of the reader.

Each maker writes a file into a folder and returns a function from normalised images to the features that are expected.
"""

import importlib.abc
import importlib.machinery
import inspect
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

SIZES = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 4}
Expected = Callable[[Tensor], Tensor]
Maker = Callable[[Path], Expected]


class _Anything(type):
    """A class that has every attribute: what timm reads of torchvision while it is imported."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _StandIn(types.ModuleType):
    __path__: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (nn.Module,), {}) if name[0].isupper() else lambda *_, **__: None


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a stand-in for torchvision and everything below it."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname.partition(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def import_timm() -> Any:
    """timm, with a stand-in for torchvision where there is none; the test is skipped without timm."""
    if importlib.util.find_spec("timm") is None:
        pytest.skip("needs timm")
    if "timm" in sys.modules:
        return sys.modules["timm"]
    finder = _Finder()
    stands = importlib.util.find_spec("torchvision") is None
    if stands:
        sys.meta_path.append(finder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import timm
    finally:
        if stands:
            sys.meta_path.remove(finder)
            for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
                del sys.modules[name]
    return timm


def scatter(network: nn.Module) -> nn.Module:
    """Give every weight a random value, so that none is left at zero or one."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * (0.05 if weight.ndim > 1 else 0.2))
    return network.eval()


def of_transformers(kind: str, pick: Callable[[Any], Tensor], **settings: Any) -> Maker:
    """A model of transformers, written by its own ``save_pretrained``."""

    def make(folder: Path) -> Expected:
        transformers = pytest.importorskip("transformers")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = getattr(transformers, kind.replace("WithProjection", "").replace("Model", "Config"))
            model = scatter(getattr(transformers, kind)(config(**SIZES, **settings)))
            if "MAE" in kind:
                model.embeddings.position_embeddings.data[:, 0] = 0
                model.config.mask_ratio = 0.0
            model.save_pretrained(folder)
        takes = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters
        return lambda x: pick(model.to(x.dtype)(x, **({"interpolate_pos_encoding": True} if takes else {})))

    return make


def of_timm(name: str, file: str, prefix: str = "", **settings: Any) -> Maker:
    """A model of timm, whose names DINO, DINOv2 and MAE share; ``prefix`` is put before them.

    A head is a projection: it has no bias.
    """

    def make(folder: Path) -> Expected:
        timm = import_timm()
        size = {"embed_dim": 128, "depth": 2, "num_heads": 2, "patch_size": 4, "img_size": 32, "num_classes": 0}
        model = scatter(timm.create_model(name, dynamic_img_size=True, **{**size, **settings}))
        if settings.get("num_classes"):
            torch.nn.init.zeros_(model.head.bias)
        state = {prefix + key: value.clone() for key, value in model.state_dict().items()}
        if file.endswith(".pth"):
            torch.save({"teacher": state, "epoch": 3}, folder / file)
        else:
            save_file(state, folder / file)
        return lambda x: model.to(x.dtype)(x)

    return make


def of_open_clip(*, quick: bool) -> Maker:
    """CLIP of open_clip, with its tower of text."""

    def make(folder: Path) -> Expected:
        import_timm()
        finder = _Finder()
        sys.meta_path.append(finder)
        try:
            model_of = pytest.importorskip("open_clip.model")
        finally:
            sys.meta_path.remove(finder)
        vision = {"layers": 2, "width": 128, "head_width": 64, "patch_size": 4, "image_size": 32}
        text = {"layers": 1, "width": 64, "heads": 1, "context_length": 8, "vocab_size": 10}
        model = scatter(model_of.CLIP(48, vision, text, quick_gelu=quick))
        save_file({key: value.clone() for key, value in model.state_dict().items()}, folder / "model.safetensors")
        return lambda x: model.to(x.dtype).visual(x)

    return make


def first(output: Any) -> Tensor:
    """The class token after the last norm."""
    return output.last_hidden_state[:, 0]


PUBLISHED: dict[str, tuple[Maker, str, str]] = {  # maker, arch, and what is recognised
    "dinov2, transformers": (of_transformers("Dinov2Model", first, mlp_ratio=3), "vit", "DINOv2"),
    "dinov2 swiglu, transformers": (
        of_transformers("Dinov2Model", first, mlp_ratio=3, use_swiglu_ffn=True), "vit", "DINOv2",
    ),
    "dinov2 registers, transformers": (of_transformers("Dinov2WithRegistersModel", first), "vit", "DINOv2"),
    "dinov3, transformers": (
        of_transformers("DINOv3ViTModel", first, num_register_tokens=4, intermediate_size=256), "vit", "DINOv3",
    ),
    "dinov3 gated, transformers": (
        of_transformers("DINOv3ViTModel", first, use_gated_mlp=True, hidden_act="silu"), "vit", "DINOv3",
    ),
    "dino, transformers": (of_transformers("ViTModel", first, layer_norm_eps=1e-6), "vit", "DINO"),
    "mae, transformers": (of_transformers("ViTMAEModel", first, layer_norm_eps=1e-6), "vit", "MAE"),
    "clip, transformers": (
        of_transformers("CLIPVisionModelWithProjection", lambda out: out.image_embeds, projection_dim=48),
        "clip", "CLIP",
    ),
    "open clip, transformers": (
        of_transformers("CLIPVisionModelWithProjection", lambda out: out.image_embeds, hidden_act="gelu"),
        "open-clip", "CLIP",
    ),
    "siglip, transformers": (of_transformers("SiglipVisionModel", lambda out: out.pooler_output), "vit", "SigLIP"),
    "dino, pth": (of_timm("vit_base_patch16_224", "model.pth", "module.backbone."), "vit", "DINO"),
    "dinov2, timm": (of_timm("vit_base_patch14_dinov2", "model.safetensors"), "vit", "DINOv2"),
    "dinov2 registers, timm": (of_timm("vit_base_patch14_reg4_dinov2", "model.pth"), "vit", "DINOv2"),
    "dinov2 giant, timm": (of_timm("vit_giant_patch14_dinov2", "model.pth"), "vit", "DINOv2"),
    "dinov3, timm": (of_timm("vit_base_patch16_dinov3", "model.safetensors", global_pool="token"), "vit", "DINOv3"),
    "dinov3 gated, timm": (
        of_timm("vit_small_plus_patch16_dinov3", "model.safetensors", global_pool="token"), "vit", "DINOv3",
    ),
    "deit3, timm": (of_timm("deit3_base_patch16_224", "model.safetensors"), "vit", "DeiT III"),
    "clip, timm": (of_timm("vit_base_patch32_clip_224", "model.safetensors", num_classes=48), "open-clip", "CLIP"),
    "siglip without pooling, timm": (
        of_timm("vit_base_patch16_siglip_gap_224", "model.safetensors"), "vit", "unknown",
    ),
    "siglip, open_clip by timm": (
        of_timm("vit_base_patch16_siglip_224", "model.safetensors", "visual.trunk.", act_layer="gelu_tanh"),
        "vit", "SigLIP",
    ),
    "clip, open_clip": (of_open_clip(quick=True), "clip", "CLIP"),
    "laion, open_clip": (of_open_clip(quick=False), "open-clip", "CLIP"),
}  # fmt: skip
