"""Layouts: which published vision transformer a file holds, told from the names and shapes of its weights."""

from dataclasses import dataclass
from typing import Any

import torch

from metarep.errors import Advice, MetarepError
from metarep.weights.vit.names import Tower

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5,) * 3, (0.5,) * 3
NATIVE = 224  # pixels at which those are used whose positions are of larger images, or of none
LETTERS = {192: "Ti", 384: "S", 768: "B", 1024: "L", 1152: "So400m", 1280: "H", 1408: "g", 1536: "g", 4096: "7B"}
HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16, 4096: 32}  # widths whose heads have not 64 features
ARCHS = ("vit", "clip", "open-clip")


@dataclass(frozen=True)
class Layout:
    """A published layout with everything that follows from it.

    Args:
        name: such as ``DINOv2``.
        settings: settings of :class:`metarep.encoders.ViT`.
        size: side of the images in pixels, if none is chosen.
        mean, std: of the images that it was trained on; None if the file does not say which.
    """

    name: str
    settings: dict[str, Any]
    size: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    @property
    def in_words(self) -> str:
        """What was recognised, in one line."""
        own = self.settings
        letter = LETTERS.get(own["width"], f"{own['width']}")
        more = f", {own['registers']} registers" if own["registers"] else ""
        places = (
            "rotary positions" if own["positions"] == "rope" else "positions of {} x {} patches".format(*own["grid"])
        )
        return f"{self.name} ViT-{letter}/{own['patch']}, {own['depth']} blocks{more}, {places}, {own['activation']}"


def recognise(tower: Tower, arch: str = "vit", features: str | None = None) -> Layout:
    """Tell the layout of an image tower from its names and shapes.

    Args:
        tower: from :func:`metarep.weights.vit.names.find_tower`.
        arch: ``vit`` to tell all from the file; ``clip`` or ``open-clip`` says which activation CLIP has.
        features: ``class``, ``mean``, ``both`` or ``attention``; None for what the layout was published with.

    Raises:
        MetarepError: the weights are not those of a vision transformer, or the file does not say which activation.
    """
    weights, published = tower.weights, tower.published
    patch = weights.get("patch.weight")
    blocks = {int(name.split(".")[1]) for name in weights if name.startswith("blocks.")}
    needed = ["norm.weight", *(f"blocks.{i}.{part}" for i in range(len(blocks)) for part in PARTS)]
    missing = [name for name in needed if name not in weights]
    if patch is None or missing or patch.shape[2] != patch.shape[3]:
        what = f"{missing[0]} is missing" if missing else "its patches are not square"
        raise MetarepError(f"it is not a whole vision transformer: {what}")
    width, depth = len(patch), len(blocks)
    places, rope = weights.get("positions"), "positions" not in weights
    scaled, gated = "blocks.0.scale1" in weights, "blocks.0.mlp.gate.weight" in weights
    grid = _grid(tower, rope=rope)
    settings: dict[str, Any] = {
        "width": width,
        "depth": depth,
        "heads": heads_of(width, rope=rope, class_token="class_token" in weights),
        "patch": patch.shape[2],
        "grid": grid,
        "registers": len(weights["registers"]) if "registers" in weights else 0,
        "class_token": "class_token" in weights,
        "positions": "rope" if rope else "learned",
        "hidden": weights["blocks.0.mlp.up.weight"].shape[0],
        "activation": "swiglu" if gated else "gelu",
        "layer_scale": 1.0 if scaled else 0.0,
        "norm_first": "norm_first.weight" in weights,
        "patch_bias": "patch.bias" in weights,
        "project": len(weights["project.weight"]) if "project.weight" in weights else 0,
    }
    native = grid[0] * settings["patch"]
    mean_std: tuple[Any, Any] = IMAGENET
    # Each library resamples positions in its own way, and its features were measured with that.
    transformers = any(name.startswith("embeddings.") for name in published)
    by_authors = "plain" if transformers else "offset"
    own: dict[str, Any] = {"resampling": "plain" if transformers else "antialias", "eps": 1e-6, "features": "class"}
    if rope and not settings["registers"] and not transformers:
        raise MetarepError("it has neither positions nor registers; DINOv3, which has no positions, has registers")
    if rope:
        name, native, own["eps"] = "DINOv3", NATIVE, 1e-5
    elif settings["norm_first"] and "pool.probe" in weights:
        raise MetarepError(
            "it has a norm before its blocks, as CLIP, and pooling by attention, as SigLIP; none is known"
        )
    elif settings["norm_first"]:
        name, mean_std, own["eps"] = "CLIP", CLIP, 1e-5
        own["activation"] = _clip_activation(tower, arch)
        if "head.weight" in published:  # fine-tuned to classify, by some on images that were normalised otherwise
            name, mean_std = "CLIP, fine-tuned", (None, None)
    elif "pool.probe" in weights:
        name, mean_std = "SigLIP", HALF
        own |= {"features": "attention", "activation": "gelu-tanh"}
    elif not settings["class_token"]:  # SigLIP without its pooling, I-JEPA and others have the same names and shapes
        name, mean_std, own["features"] = "unknown", (None, None), "mean"
    elif scaled and places is not None and len(places) == grid[0] * grid[1] and not settings["registers"]:
        name = "DeiT III"  # the class token has no position
        if "blocks.0.ls1.gamma" not in published:
            raise MetarepError(
                "its names are those of DeiT III and of networks with rotary positions beside the learned ones; timm's "
                "file of DeiT III has other names and can be read"
            )
    elif scaled:
        name, native = "DINOv2", NATIVE
        own["resampling"] = "antialias" if settings["registers"] else by_authors
    elif places is not None and settings["class_token"] and not places[0].any():
        name, own["resampling"] = "MAE", "plain"  # its positions are sines, and that of the class token is zero
    elif {"head.weight", "classifier.weight"} & (published | tower.rest):
        name, mean_std = "supervised", (None, None)
    else:
        name, own["resampling"] = "DINO", by_authors
    settings |= own | ({"features": features} if features else {}) | {"layout": name}
    return Layout(name, settings, native, *mean_std)


PARTS = (
    *("norm1.weight", "norm2.weight", "attention.qkv.weight", "attention.out.weight"),
    *("mlp.up.weight", "mlp.down.weight"),
)  # of each block


def _grid(tower: Tower, *, rope: bool) -> list[int]:
    """Rows and columns of the learned positions, which are square; positions without a class token get one."""
    if rope:
        return [1, 1]
    weights = tower.weights
    rows, has_class = len(weights["positions"]), "class_token" in weights
    for count, first in ((rows - 1, has_class), (rows, False)):
        side = round(max(0, count) ** 0.5)
        if count > 0 and side * side == count and (first or count == rows):
            if has_class and not first:  # timm stores none for the class token, which is the same as zero
                zero = torch.zeros_like(weights["positions"][:1])
                weights["positions"] = torch.cat([zero, weights["positions"]])
            return [side, side]
    raise MetarepError(f"its {rows} positions are not those of a square image")


def heads_of(width: int, *, rope: bool, class_token: bool) -> int:
    """The number of attention heads of all published networks of this width. The shapes do not determine it.

    Args:
        width: features of a token.
        rope: whether positions are rotations, as in DINOv3.
        class_token: whether there is one; SigLIP has none.

    Raises:
        MetarepError: no published network has this width.

    >>> heads_of(1536, rope=False, class_token=True), heads_of(1536, rope=False, class_token=False)
    (24, 16)
    """
    if rope and width == 1280:
        return 20
    if width == 1536 and not class_token:  # SigLIP 2, giant; with a class token it is DINOv2
        return 16
    heads = HEADS.get(width, width // 64)
    if not heads or width % heads:
        raise MetarepError(f"no published vision transformer has the width {width}, so its heads are not known")
    return heads


def _clip_activation(tower: Tower, arch: str) -> str:
    """The activation of CLIP. Names and shapes determine it only if the file has the tensors of OpenAI's format."""
    if arch == "open-clip":
        return "gelu"
    if arch == "clip" or {"input_resolution", "context_length", "vocab_size"} & tower.rest:
        return "quick-gelu"
    raise MetarepError(
        "it is CLIP, whose files do not say which activation they were trained with",
        advice=(
            Advice("take {arch} for the weights of OpenAI (QuickGELU)", arch="clip"),
            Advice("{arch} for others of open_clip, such as LAION's (GELU)", arch="open-clip"),
        ),
    )
