"""represent: make a Representation of a module or an Encoder of your own."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Generator, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from metarep.encoders import Encoder, Preprocess
from metarep.encoders.finite import refuse_lost_weights
from metarep.errors import MetarepError
from metarep.weights.representation import Representation

ASK = "mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=224"  # expected by most networks of photographs


def represent(
    network: nn.Module,
    *,
    size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Representation:
    """Make a representation of a module or of an :class:`metarep.encoders.Encoder`.

    The representation has a copy of the network, on the CPU and in evaluation mode. The network itself is not changed,
    and its training may continue.

    Args:
        network: an encoder; or a module that maps normalised images ``(b, c, h, w)`` to features ``(b, dim)``.
        size: side of the images in pixels, or height and width. Leave it out for an encoder, which has its own, and for
            a network of timm, which has it in its ``pretrained_cfg``.
        mean, std: mean and deviation of the images that the module was trained on, one for each channel (1 or 3), in
            units of 0 to 1. They may be left out for the same networks as ``size``.

    Raises:
        MetarepError: size, mean or std is missing; the module does not take such images or does not give such features;
            a weight is NaN or infinite; or the features of an image change from call to call, or with other images in
            the batch.

    >>> network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    >>> representation = represent(network, size=32, mean=(0.5,), std=(0.25,))
    >>> representation.name, representation.encoder.dim, representation.encoder.preprocess.size
    ('Sequential', 4, (32, 32))
    """
    name = network.arch["name"] if isinstance(network, Encoder) else type(_inside(network)).__name__
    if isinstance(network, Encoder):
        if (size, mean, std) != (None, None, None):
            raise MetarepError("an Encoder has its own size, mean and std; give them to its Preprocess")
        encoder = _copied(network)
    else:
        network = _inside(network)
        encoder = Encoder(_copied(network), preprocess_of(network, size=size, mean=mean, std=std))
    refuse_lost_weights(encoder)
    encoder = encoder.cpu().eval()
    _refuse_unsteady(encoder, name)
    return Representation(encoder, name)


def _refuse_unsteady(encoder: Encoder, name: str) -> None:
    """Raise if the features of an image differ between two calls, or depend on the other images of a batch."""
    preprocess = encoder.preprocess
    noise = torch.randint(256, (2, preprocess.channels, *preprocess.size), generator=Generator().manual_seed(0))
    images = noise.to(torch.uint8)
    with torch.no_grad():
        both, again, alone = encoder(images), encoder(images), encoder(images[:1])
    near = 1e-2 * both.abs().amax()
    if (both - again).abs().amax() > near:
        raise MetarepError(
            f"{name} gives an image other features in each call, also in evaluation mode: it draws at random; turn "
            "that off in evaluation mode"
        )
    if (both[:1] - alone).abs().amax() > near:
        raise MetarepError(
            f"{name} gives an image other features beside other images, also in evaluation mode; a batch norm without "
            "running statistics does so, so use one with track_running_stats=True"
        )


def preprocess_of(
    network: nn.Module,
    *,
    size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Preprocess:
    """The preprocessing that a module expects, from the arguments or from its ``pretrained_cfg``, which timm sets.

    Args:
        network: the module.
        size: side of the images in pixels, or height and width.
        mean, std: one number for each channel, in units of 0 to 1.

    Raises:
        MetarepError: a value is missing. No default is assumed, because with a wrong mean a network gives worse
            features without any error.
    """
    config: Any = getattr(network, "pretrained_cfg", None)
    config = config if isinstance(config, Mapping) else {}
    mean, std = config.get("mean") if mean is None else mean, config.get("std") if std is None else std
    if size is None and len(tuple(config.get("input_size", ()))) == 3:
        size = tuple(config["input_size"])[1:]
    missing = [name for name, value in (("mean", mean), ("std", std), ("size", size)) if value is None]
    if mean is None or std is None or size is None:
        raise MetarepError(
            f"{type(network).__name__} does not say which images it expects; give {' and '.join(missing)}, as in {ASK}"
        )
    height, width = (size, size) if isinstance(size, int) else size
    shift, scale = _numbers("mean", mean), _numbers("std", std)
    return Preprocess((int(height), int(width)), len(shift), shift, scale)


def _numbers(what: str, values: Any) -> tuple[float, ...]:  # noqa: ANN401 - any argument of the user
    """The values as a tuple of numbers, or an error that names the argument."""
    try:
        return tuple(map(float, values))
    except (TypeError, ValueError):
        raise MetarepError(f"{what} must be one number for each channel, as (0.5, 0.5, 0.5), not {values!r}") from None


def _inside(network: nn.Module) -> nn.Module:
    """The module without the wrappers of parallel training and of torch.compile."""
    while True:
        if isinstance(network, DataParallel | DistributedDataParallel):
            network = network.module
        elif isinstance(inner := getattr(network, "_orig_mod", None), nn.Module):
            network = inner
        else:
            return network


def _copied(network: Any) -> Any:  # noqa: ANN401 - the copy has the same type
    """A deep copy of a network, or an error that says why there is none."""
    try:
        return copy.deepcopy(network)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise MetarepError(
            f"{type(network).__name__} cannot be copied by copy.deepcopy, which metarep needs: {reason}"
        ) from error
