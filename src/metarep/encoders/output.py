"""What bodies of others return: a tensor, or something that holds one, and which part of it is the features."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from metarep.errors import MetarepError

NAMES = ("pooler_output", "image_embeds")  # what transformers calls one row an image
ADVICE = {
    3: "; that is a row for each token: wrap it in a module that returns one of them, or their mean",
    4: "; that is a map: put nn.AdaptiveAvgPool2d(1) and nn.Flatten() behind it",
}


class Picked(nn.Module):
    """A body with the features picked out of what it returns, as ``(b, dim)``.

    Args:
        body: the module.
        key: of the features in its answer; None if that is a tensor.
    """

    def __init__(self, body: nn.Module, key: str | int | None) -> None:
        super().__init__()
        self.body, self.key = body, key

    def forward(self, x: Tensor) -> Tensor:
        answer = self.body(x)
        return (answer if self.key is None else answer[self.key]).flatten(1)


def key_of(answer: Any, name: str) -> str | int | None:  # noqa: ANN401 - whatever a body returns
    """Where the features stand in what a body returned for one image; None if it is they.

    A dictionary's ``pooler_output`` or ``image_embeds`` is taken, and the only tensor of a dictionary or tuple.

    Raises:
        MetarepError: there is none, or several; or it is not one row of features.

    >>> import torch
    >>> key_of({"last_hidden_state": torch.zeros(1, 5, 8), "pooler_output": torch.zeros(1, 8)}, "ViT")
    'pooler_output'
    """
    if isinstance(answer, Tensor):
        _refuse_shape(answer, name, "")
        return None
    kind = type(answer).__name__
    if not isinstance(answer, Mapping | tuple | list):
        raise MetarepError(f"{name} gives a {kind} for one image; an encoder gives a tensor (1, dim)")
    pairs = answer.items() if isinstance(answer, Mapping) else enumerate(answer)
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
