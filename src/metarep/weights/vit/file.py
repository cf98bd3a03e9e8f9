"""open_vit: a file of a published vision transformer, as an encoder."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from metarep.encoders import Encoder, Preprocess, build_encoder
from metarep.encoders.vit.vit import FeatureKind
from metarep.errors import MetarepError, unknown
from metarep.machine.state_dicts import read_state_dict
from metarep.weights.rebuild import rebuild
from metarep.weights.vit.layouts import ARCHS, Layout, recognise
from metarep.weights.vit.names import find_tower

VIT_FILES = (".safetensors", ".pth", ".pt", ".bin")  # how the names of such files end


def open_vit(
    path: Path,
    *,
    arch: str = "vit",
    size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> tuple[Encoder, Layout]:
    """Open a file in one of the layouts of DINO, DINOv2, DINOv3, MAE, CLIP (its image tower) or SigLIP.

    The layout is told from names and shapes, and the size, mean and deviation of the images follow from it. Neither
    torchvision nor a network is needed, and no code of the file runs.

    Args:
        path: a ``.safetensors`` file, or a ``.pth`` that ``torch.save`` wrote.
        arch: ``vit``; ``clip`` for the weights of OpenAI and ``open-clip`` for others, which differ in the activation;
            with ``:mean``, ``:both`` or ``:class`` behind it for other features than those that were published.
        size: side of the images in pixels, or height and width; a multiple of the patch.
        mean, std: for networks that were trained on images normalised in another way.

    Returns:
        The encoder in evaluation mode, and its layout.

    Raises:
        MetarepError: the file cannot be read, is not a vision transformer, or does not say all that is needed.
    """
    name, _, features = arch.partition(":")
    if name not in ARCHS:
        raise unknown("architecture", arch, ARCHS)
    if features and features not in get_args(FeatureKind):
        raise unknown("kind of features", features, get_args(FeatureKind))
    tensors = read_state_dict(path)
    try:
        tower = find_tower(tensors)
        if tower is None:
            raise MetarepError("it has no patches and blocks, as a vision transformer has")
        layout = recognise(tower, name, features or None)
        preprocess = _preprocess(layout, size, mean, std)
        weights = _wanted(tower.weights, layout)
        encoder = rebuild(lambda: build_encoder("vit", preprocess, **layout.settings), weights)
    except MetarepError as error:
        raise MetarepError(f"{path}: {error.message}", advice=error.advice) from None
    return encoder.eval(), layout


def _wanted(weights: dict[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """The weights of the encoder in float32, without those that these features do not need."""
    pooled = layout.settings["features"] == "attention"
    kept = {name: value for name, value in weights.items() if pooled or not name.startswith("pool.")}
    return {f"body.{name}": value.to(torch.float32).contiguous() for name, value in kept.items()}


def _preprocess(
    layout: Layout, size: int | tuple[int, int] | None, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Preprocess:
    """The preprocessing of a layout, with what the caller chooses."""
    mean, std = layout.mean if mean is None else mean, layout.std if std is None else std
    if mean is None or std is None:
        raise MetarepError(
            f"its layout is {layout.name}, and the file does not say how its images were normalised; in Python, "
            "load_representation takes mean and std, such as mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)"
        )
    sides = layout.size if size is None else size
    shape = (sides, sides) if isinstance(sides, int) else sides
    return Preprocess(shape, len(mean), tuple(map(float, mean)), tuple(map(float, std)))
