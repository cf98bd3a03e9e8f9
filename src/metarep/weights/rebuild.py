"""Rebuild networks from files of untrusted origin: shapes are compared before memory is taken."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from metarep.encoders import BROUGHT, Encoder, Preprocess, build_encoder
from metarep.errors import MetarepError, one_line
from metarep.weights.shapes import shapes_only

Network = TypeVar("Network", bound=nn.Module)


def rebuild(build: Callable[[], Network], weights: Mapping[str, Tensor]) -> Network:
    """Build a network and load its weights, if they have the names and shapes of this network.

    The network is first built on the device ``meta``, which needs no memory: a damaged or hostile header may describe a
    huge one.

    Args:
        build: builds the network. It is called twice.
        weights: the weights by name.

    Raises:
        MetarepError: a weight is missing, is one too many, or has another shape. The message names the first.

    >>> import torch
    >>> rebuild(lambda: nn.Linear(2, 10**9), {"weight": torch.zeros(3, 2), "bias": torch.zeros(3)})
    Traceback (most recent call last):
    metarep.errors.MetarepError: weight has the shape (3, 2); it should have (1000000000, 2)
    """
    with shapes_only():
        shapes = {name: tuple(value.shape) for name, value in build().state_dict().items()}
    saved = {name: tuple(value.shape) for name, value in weights.items()}
    if shapes != saved:
        name = next(name for name in shapes | saved if shapes.get(name) != saved.get(name))
        if name not in saved:
            raise MetarepError(f"{name} is missing; it should have the shape {shapes[name]}")
        if name not in shapes:
            raise MetarepError(f"{name} is not a weight of this network")
        raise MetarepError(f"{name} has the shape {saved[name]}; it should have {shapes[name]}")
    network = build()
    network.load_state_dict(dict(weights))
    return network


def encoder_of(about: Mapping[str, Any], preprocess: Preprocess) -> Encoder:
    """The untrained encoder that a header describes. It reads no other file, and nothing from the internet.

    Args:
        about: the name of the encoder and its settings.
        preprocess: how its images are prepared.

    Raises:
        MetarepError: the encoder or a setting is unknown, or a third-party network is to be fetched from elsewhere.
    """
    model = about.get("model", "")
    if about["name"] in BROUGHT and (about.get("pretrained") or not isinstance(model, str) or ":" in model):
        raise MetarepError(f"it wants the network {model!r} from elsewhere; an encoder holds all of its own weights")
    return build_encoder(**{**about, "preprocess": preprocess})


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    """A context that turns what a wrong header raises into an error that names the file.

    Args:
        path: the file.

    Raises:
        MetarepError: anything in the block was raised by wrong values.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError, MemoryError) as error:
        raise MetarepError(f"{path} is damaged, or was written by a newer metarep: {one_line(error)}") from error
