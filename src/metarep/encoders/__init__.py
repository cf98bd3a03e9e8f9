"""Encoders: from images to a representation."""

from typing import Any

from metarep.device import Precision
from metarep.encoders.conv4 import Conv4
from metarep.encoders.efficientnet_lite import EfficientNetLite
from metarep.encoders.encoder import Encoder, computing
from metarep.encoders.onnx import OnnxBody
from metarep.encoders.preprocess import Preprocess
from metarep.encoders.resnet12 import ResNet12
from metarep.encoders.space import space_of
from metarep.encoders.timm import TimmBody
from metarep.errors import refuse_unknown_settings, unknown

__all__ = [
    "BROUGHT",
    "ENCODERS",
    "Conv4",
    "EfficientNetLite",
    "Encoder",
    "Precision",
    "Preprocess",
    "ResNet12",
    "build_encoder",
    "computing",
    "space_of",
]

ENCODERS = {"conv4": Conv4, "resnet12": ResNet12, "efficientnet-lite": EfficientNetLite}
BROUGHT = {"timm": TimmBody, "onnx": OnnxBody}  # others' networks; made by metarep.pretrained, rebuilt from a file


def build_encoder(name: str, preprocess: Preprocess, **settings: Any) -> Encoder:  # noqa: ANN401 - the body's own settings
    """A fresh encoder of ours, by name; ``settings`` are those of its class (``width``, ``drop``).

    >>> build_encoder("conv4", Preprocess((28, 28), 1, (0.0,), (1.0,))).dim
    64
    """
    kinds = ENCODERS | BROUGHT
    if name not in kinds:
        raise unknown("encoder", name, ENCODERS)
    refuse_unknown_settings(name, kinds[name].__init__, settings)
    return Encoder(kinds[name](preprocess.channels, **settings), preprocess, {"name": name, **settings})
