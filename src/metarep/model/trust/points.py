"""Points: the vectors that familiarity compares, made from the features of an encoder."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from metarep.encoders import Encoder
from metarep.encoders.classifier import class_probabilities
from metarep.weights.shipped import general_mean

POWER = 0.7  # exponent of the magnitude of each feature
SHARE = 0.4  # length of the part of the probabilities, where that of the features has length 1
ROOT = 0.5  # exponent of the length of a centred point that its score is divided by


@dataclass(frozen=True)
class PointSpace:
    """The space that familiarity compares images in.

    A point holds the features of an image. Where the encoder keeps the classifier that it was pretrained with, the
    square roots of the probabilities of its classes stand behind them; a product of such roots compares two
    distributions (Bhattacharyya, 1946). They tell apart what the features of a few images do not: a new bird looks like
    the birds of a gallery, and the classifier calls it by another name.

    Args:
        classifier: :attr:`metarep.encoders.Encoder.classifier`, shape ``(classes, dim + 1)``, or None.
        general: the mean point of photographs in general, shape ``(points,)``; None if it was not measured for this
            encoder.
        measured: whether the points are those with which the encoder was measured beforehand. They are not if its
            folder is of an earlier version, which kept no classifier.

    >>> space = PointSpace(torch.tensor([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0]]))
    >>> space.points(torch.tensor([[1.0, 0.0]])).round(decimals=2)
    tensor([[1.0000, 0.0000, 0.4000, 0.0000]])
    """

    classifier: Float[Tensor, "classes _"] | None = None
    general: Float[Tensor, " points"] | None = None
    measured: bool = True

    @classmethod
    def of(cls, encoder: Encoder, name: str) -> "PointSpace":
        """Returns the space of an encoder.

        Args:
            encoder: an encoder.
            name: the name that it was loaded by; empty if it has none.
        """
        classifier, general = encoder.classifier, general_mean(name) if name else None
        if general is None or len(general) == encoder.dim + (0 if classifier is None else len(classifier)):
            return cls(classifier, general)
        return cls(None, general[: encoder.dim], measured=False)

    @property
    def root(self) -> float:
        """The exponent of the length of a centred point that its score is divided by.

        An image that is far from the mean of photographs has many directions to be unknown in, so it must resemble a
        class more. It is 0 without a classifier, for which thresholds of earlier versions are stored.
        """
        return 0.0 if self.classifier is None else ROOT

    def points(self, features: Float[Tensor, "n dim"]) -> Float[Tensor, "n points"]:
        """Returns the points of images, shape ``(n, points)``.

        Args:
            features: the features as the encoder gives them.

        >>> PointSpace().points(torch.tensor([[3.0, 4.0]]).pow(1 / 0.7)).round(decimals=2)
        tensor([[0.6000, 0.8000]])
        """
        powers = functional.normalize(features.sign() * features.abs().pow(POWER), dim=-1)
        if self.classifier is None:
            return powers
        return torch.cat([powers, SHARE * class_probabilities(features, self.classifier).sqrt()], -1)


PLAIN = PointSpace()
"""The space of an encoder of which nothing but its features is known."""
