"""The classifier that an encoder was pretrained with: what it says of an image in words of its own classes."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

CLASSIFIER = "pretrained_classifier"  # its name among the tensors of a file


def pack_classifier(
    weight: Float[Tensor, "classes dim"], bias: Float[Tensor, " classes"]
) -> Float[Tensor, "classes _"]:
    """Returns a classifier as encoders keep it, shape ``(classes, dim + 1)``: its weights, and its biases behind them.

    The numbers are rounded to float16, as files hold them, so that an encoder is the same before and after it is saved.

    Args:
        weight: the weights of a linear layer on the features.
        bias: its biases.

    >>> pack_classifier(torch.tensor([[0.5, 2.0]]), torch.tensor([1.0]))
    tensor([[0.5000, 2.0000, 1.0000]])
    """
    return torch.cat([weight, bias.unsqueeze(1)], 1).half().float()


def class_probabilities(
    features: Float[Tensor, "n dim"], classifier: Float[Tensor, "classes _"]
) -> Float[Tensor, "n classes"]:
    """Returns the probability of each class that an encoder was pretrained on, shape ``(n, classes)``.

    Args:
        features: the features as the encoder gives them.
        classifier: see :func:`pack_classifier`.

    >>> moth_or_fly = pack_classifier(torch.eye(2), torch.zeros(2))
    >>> class_probabilities(torch.tensor([[3.0, 3.0], [9.0, 0.0]]), moth_or_fly).round(decimals=2).tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """
    classifier = classifier.to(features)
    return (features @ classifier[:, :-1].mT + classifier[:, -1]).softmax(-1)


def written_classifier(classifier: Tensor | None) -> dict[str, Tensor]:
    """Returns what a file holds of a classifier, by name; empty if there is none."""
    return {} if classifier is None else {CLASSIFIER: classifier.half()}


def read_classifier(tensors: Mapping[str, Tensor], dim: int) -> Float[Tensor, "classes _"] | None:
    """Returns the classifier among the tensors of a file; None if it has none.

    Args:
        tensors: the tensors of a file, by name.
        dim: the number of features of the encoder.

    Raises:
        TypeError: the tensor has another shape, or a number that is NaN or infinite.

    >>> read_classifier({"pretrained_classifier": torch.zeros(10, 3).half()}, 2).shape, read_classifier({}, 2)
    (torch.Size([10, 3]), None)
    """
    classifier = tensors.get(CLASSIFIER)
    if classifier is None:
        return None
    right = classifier.ndim == 2 and classifier.shape[1] == dim + 1 and classifier.dtype == torch.float16
    if not right or not len(classifier) or not bool(classifier.isfinite().all()):
        raise TypeError(f"its tensor {CLASSIFIER!r} is not rows of {dim} weights and a bias")
    return classifier.float()
