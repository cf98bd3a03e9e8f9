"""The output of a third-party body: which part of it is the features."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from metarep.errors import MetarepError

NAMES = ("pooler_output", "image_embeds")  # the names that transformers uses for one row an image
ADVICE = {
    3: "; that is a row for each token: wrap it in a module that returns one of them, or their mean",
    4: "; that is a feature map: put nn.AdaptiveAvgPool2d(1) and nn.Flatten() behind it",
}


class Picked(nn.Module):
    """A body whose output is reduced to its features, ``(b, dim)``.

    Args:
        body: the module.
        key: key of the features in its output; None if the output is a tensor.
    """

    def __init__(self, body: nn.Module, key: str | int | None) -> None:
        super().__init__()
        self.body, self.key = body, key

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(b, dim)`` of normalised images."""
        output = self.body(x)
        return (output if self.key is None else output[self.key]).flatten(1)


def key_of(output: Any, name: str) -> str | int | None:  # noqa: ANN401 - whatever a body returns
    """The key of the features in the output of a body for one image; None if the output itself is the features.

    A dictionary's ``pooler_output`` or ``image_embeds`` comes first, then the only tensor of a dictionary or tuple.

    Args:
        output: what the body returned for one image.
        name: name of the body, for the message.

    Raises:
        MetarepError: the output holds no tensor or several, or the tensor is not one row of features.

    >>> import torch
    >>> key_of({"last_hidden_state": torch.zeros(1, 5, 8), "pooler_output": torch.zeros(1, 8)}, "ViT")
    'pooler_output'
    """
    if isinstance(output, Tensor):
        _refuse_shape(output, name, "")
        return None
    kind = type(output).__name__
    if not isinstance(output, Mapping | tuple | list):
        raise MetarepError(f"{name} gives a {kind} for one image; an encoder gives a tensor (1, dim)")
    pairs = output.items() if isinstance(output, Mapping) else enumerate(output)
    tensors = {key: value for key, value in pairs if isinstance(value, Tensor)}
    key = next((each for each in NAMES if each in tensors), next(iter(tensors)) if len(tensors) == 1 else None)
    if key is None:
        held = ", ".join(f"{key} {tuple(value.shape)}" for key, value in tensors.items()) or "no tensor"
        raise MetarepError(
            f"{name} gives a {kind} for one image ({held}); an encoder gives a tensor (1, dim): wrap it in a module "
            "that returns the features alone"
        )
    _refuse_shape(tensors[key], name, f"{key} " if isinstance(key, str) else "")
    return key


def _refuse_shape(features: Tensor, name: str, what: str) -> None:
    shape = tuple(features.shape)
    if shape[:1] != (1,) or not (len(shape) == 2 or (len(shape) == 4 and shape[2:] == (1, 1))):
        raise MetarepError(
            f"{name} gives {what}{shape} for one image; an encoder gives (1, dim){ADVICE.get(len(shape), '')}"
        )
