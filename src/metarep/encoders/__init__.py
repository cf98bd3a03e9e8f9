"""Encoders: networks that map images to feature vectors (representations), and how images are prepared for them."""

from typing import Any

from metarep.encoders.conv4 import Conv4
from metarep.encoders.efficientnet_lite import EfficientNetLite
from metarep.encoders.encoder import Encoder, computing
from metarep.encoders.feature_means import keep_feature_means
from metarep.encoders.onnx import OnnxBody
from metarep.encoders.preprocess import Preprocess
from metarep.encoders.resnet12 import ResNet12
from metarep.encoders.space import space_of
from metarep.encoders.timm import TimmBody
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
    "build_encoder",
    "computing",
    "keep_feature_means",
    "space_of",
]

ENCODERS: dict[str, type[Conv4] | type[ResNet12] | type[EfficientNetLite]] = {
    "conv4": Conv4,
    "resnet12": ResNet12,
    "efficientnet-lite": EfficientNetLite,
}
"""The encoders that a run can train, by name."""
BROUGHT = {"timm": TimmBody, "onnx": OnnxBody}  # third-party networks, which metarep.weights.named opens


def build_encoder(name: str, preprocess: Preprocess, **settings: Any) -> Encoder:  # noqa: ANN401 - the body's own settings
    """Make an untrained encoder of this library by its name.

    Args:
        name: ``conv4``, ``resnet12`` or ``efficientnet-lite``.
        preprocess: how its images are prepared.
        settings: keyword arguments of its class, such as ``width`` or ``drop``.

    Raises:
        MetarepError: no encoder has this name, or its class does not take one of the settings.

    >>> build_encoder("conv4", Preprocess((28, 28), 1, (0.0,), (1.0,))).dim
    64
    """
    kinds = ENCODERS | BROUGHT
    if name not in kinds:
        raise unknown("encoder", name, ENCODERS)
    refuse_unknown_settings(name, kinds[name].__init__, settings)
    return Encoder(kinds[name](preprocess.channels, **settings), preprocess, {"name": name, **settings})
