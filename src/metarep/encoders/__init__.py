"""Encoders: from images to a representation."""

from typing import Any

from metarep.encoders.conv4 import Conv4
from metarep.encoders.encoder import Encoder, Precision
from metarep.encoders.preprocess import Preprocess
from metarep.encoders.resnet12 import ResNet12
from metarep.errors import refuse_unknown_settings, unknown

__all__ = ["ENCODERS", "Conv4", "Encoder", "Precision", "Preprocess", "ResNet12", "build_encoder"]

ENCODERS = {"conv4": Conv4, "resnet12": ResNet12}


def build_encoder(name: str, preprocess: Preprocess, **settings: Any) -> Encoder:  # noqa: ANN401 - the body's own settings
    """A fresh encoder of ours, by name; ``settings`` are those of its class (``width``, ``drop``).

    >>> build_encoder("conv4", Preprocess((28, 28), 1, (0.0,), (1.0,))).dim
    64
    """
    if name not in ENCODERS:
        raise unknown("encoder", name, ENCODERS)
    refuse_unknown_settings(name, ENCODERS[name].__init__, settings)
    return Encoder(ENCODERS[name](preprocess.channels, **settings), preprocess, {"name": name, **settings})
