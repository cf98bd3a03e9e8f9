"""What an encoder keeps beside its weights, as tensors of a file."""

from collections.abc import Mapping

from torch import Tensor

from metarep.encoders.classifier import CLASSIFIER, read_classifier, written_classifier
from metarep.encoders.encoder import Encoder
from metarep.encoders.feature_spread import SPREAD, read_feature_spread, written_feature_spread

KEPT = (SPREAD, CLASSIFIER)  # their names; no weight of an encoder is called so


def written_kept(encoder: Encoder) -> dict[str, Tensor]:
    """Returns what a file holds of an encoder beside its weights, by name."""
    return written_feature_spread(encoder) | written_classifier(encoder.classifier)


def read_kept(tensors: Mapping[str, Tensor], encoder: Encoder) -> None:
    """Gives an encoder what a file holds of it beside its weights.

    Args:
        tensors: the tensors of the file, by name.
        encoder: changed in place.

    Raises:
        TypeError: a tensor has another shape, or a number that it cannot have.
    """
    encoder.feature_spread = read_feature_spread(tensors, encoder.dim)
    encoder.classifier = read_classifier(tensors, encoder.dim)
