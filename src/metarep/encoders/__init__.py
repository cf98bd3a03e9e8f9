"""Encoders: networks that map images to feature vectors (representations), and how images are prepared for them."""

from typing import Any

from metarep.encoders.conv4 import Conv4
from metarep.encoders.efficientnet_lite import EfficientNetLite
from metarep.encoders.encoder import Encoder, computing
from metarep.encoders.feature_means import keep_feature_means
from metarep.encoders.feature_spread import (
    drop_feature_statistics,
    keep_feature_spread,
    keep_feature_statistics,
    keep_view_spread,
)
from metarep.encoders.low_rank import lend_low_rank
from metarep.encoders.onnx import OnnxBody
from metarep.encoders.preprocess import Preprocess
from metarep.encoders.resnet12 import ResNet12
from metarep.encoders.space import space_of
from metarep.encoders.timm import TimmBody
from metarep.encoders.vit import SIZES, ViT
from metarep.errors import refuse_unknown_settings, unknown
from metarep.machine.device import Precision

__all__ = [
    "BROUGHT",
    "ENCODERS",
    "Conv4",
    "EfficientNetLite",
    "Encoder",
    "Precision",
    "Preprocess",
    "ResNet12",
    "ViT",
    "build_encoder",
    "computing",
    "drop_feature_statistics",
    "keep_feature_means",
    "keep_feature_spread",
    "keep_feature_statistics",
    "keep_view_spread",
    "space_of",
]

ENCODERS: dict[str, type[Conv4] | type[ResNet12] | type[EfficientNetLite] | type[ViT]] = {
    "conv4": Conv4,
    "resnet12": ResNet12,
    "efficientnet-lite": EfficientNetLite,
    "vit": ViT,
}
"""The architectures of this library, by name. ``build_encoder`` knows some sizes of ViT by names of their own."""
BROUGHT = {"timm": TimmBody, "onnx": OnnxBody}  # third-party networks, which metarep.weights.named opens


def build_encoder(name: str, preprocess: Preprocess, **settings: Any) -> Encoder:  # noqa: ANN401 - the body's own settings
    """Make an untrained encoder of this library by its name.

    Args:
        name: ``conv4``, ``resnet12``, ``efficientnet-lite`` or ``vit``; or a size of ViT, such as ``vit-s16``, which
            is ``vit`` with settings (``vit-tiny`` is for small images). ``grid`` is that of the images by default.
        preprocess: how its images are prepared.
        settings: keyword arguments of its class, such as ``width`` or ``drop``; and ``low_rank``, the rank of low-rank
            updates of its layers (:mod:`metarep.encoders.low_rank`).

    Raises:
        MetarepError: no encoder has this name, or its class does not take one of the settings.

    >>> build_encoder("conv4", Preprocess((28, 28), 1, (0.0,), (1.0,))).dim
    64
    """
    kinds = ENCODERS | BROUGHT
    if name in SIZES:
        name, settings = "vit", SIZES[name] | settings
    if name not in kinds:
        raise unknown("encoder", name, [*ENCODERS, *SIZES])
    rank = settings.pop("low_rank", 0)
    refuse_unknown_settings(name, kinds[name].__init__, settings)
    if name == "vit" and "grid" not in settings:
        patch = int(settings.get("patch", 4))
        settings["grid"] = [max(1, side // max(1, patch)) for side in preprocess.size]
    encoder = Encoder(kinds[name](preprocess.channels, **settings), preprocess, {"name": name, **settings})
    if rank:
        lend_low_rank(encoder, rank)
    return encoder
