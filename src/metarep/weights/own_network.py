"""Networks of one's own: a module, or an Encoder, made a Representation."""

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

ASK = "mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=224"  # as most networks of photographs expect


def represent(
    network: nn.Module,
    *,
    size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Representation:
    """A module or :class:`metarep.encoders.Encoder` of one's own as a representation.

    A copy is taken, on the processor and in evaluation mode: the module stays in its own mode and may go on training.

    Args:
        network: an encoder; or a module from normalised images ``(b, c, h, w)`` to features ``(b, dim)``.
        size: side of the images in pixels, or height and width. Not of an encoder, which brings its own, as ``mean``
            and ``std`` are not. A network of timm has all three in its ``pretrained_cfg``, and they may be left out.
        mean, std: of the images the module was trained on, one a channel (1 or 3), in units of 0 to 1.

    Raises:
        MetarepError: it is not known how the module wants its images; it does not take or give what it should; a
            weight is no number; or the features of an image change from call to call, or with the other images.

    >>> network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    >>> found = represent(network, size=32, mean=(0.5,), std=(0.25,))
    >>> found.name, found.encoder.dim, found.encoder.preprocess.size
    ('Sequential', 4, (32, 32))
    """
    name = network.arch["name"] if isinstance(network, Encoder) else type(_inside(network)).__name__
    if isinstance(network, Encoder):
        if (size, mean, std) != (None, None, None):
            raise MetarepError("an Encoder brings its own size, mean and std; give them to its Preprocess")
        encoder = _copied(network)
    else:
        network = _inside(network)
        encoder = Encoder(_copied(network), preprocess_of(network, size=size, mean=mean, std=std))
    refuse_lost_weights(encoder)
    encoder = encoder.cpu().eval()
    _refuse_unsteady(encoder, name)
    return Representation(encoder, name)


def _refuse_unsteady(encoder: Encoder, name: str) -> None:
    """What an image is must not depend on when it is asked, nor on what else is asked."""
    preprocess = encoder.preprocess
    noise = torch.randint(256, (2, preprocess.channels, *preprocess.size), generator=Generator().manual_seed(0))
    images = noise.to(torch.uint8)
    with torch.no_grad():
        both, again, alone = encoder(images), encoder(images), encoder(images[:1])
    near = 1e-2 * both.abs().amax()
    if (both - again).abs().amax() > near:
        raise MetarepError(
            f"{name} gives an image other features each time, also in evaluation mode: it draws at random"
        )
    if (both[:1] - alone).abs().amax() > near:
        raise MetarepError(
            f"{name} gives an image other features beside other images, in evaluation mode too; a batch norm without "
            "running statistics does so"
        )


def preprocess_of(
    network: nn.Module,
    *,
    size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Preprocess:
    """What a module expects of its images: what is said, and else what its ``pretrained_cfg`` says, as timm's do.

    Raises:
        MetarepError: nobody says it. Nothing is assumed: under a wrong mean a network works, only worse.
    """
    told: Any = getattr(network, "pretrained_cfg", None)
    told = told if isinstance(told, Mapping) else {}
    mean, std = told.get("mean") if mean is None else mean, told.get("std") if std is None else std
    if size is None and len(tuple(told.get("input_size", ()))) == 3:
        size = tuple(told["input_size"])[1:]
    missing = [name for name, value in (("mean", mean), ("std", std), ("size", size)) if value is None]
    if mean is None or std is None or size is None:
        raise MetarepError(
            f"{type(network).__name__} does not say how it wants its images; give {' and '.join(missing)}, as in {ASK}"
        )
    height, width = (size, size) if isinstance(size, int) else size
    shift, scale = _numbers("mean", mean), _numbers("std", std)
    return Preprocess((int(height), int(width)), len(shift), shift, scale)


def _numbers(what: str, values: Any) -> tuple[float, ...]:  # noqa: ANN401 - whatever was given
    try:
        return tuple(map(float, values))
    except (TypeError, ValueError):
        raise MetarepError(f"{what} must be a number for each channel, as (0.5, 0.5, 0.5), not {values!r}") from None


def _inside(network: nn.Module) -> nn.Module:
    """The module inside of what makes it parallel or compiled."""
    while True:
        if isinstance(network, DataParallel | DistributedDataParallel):
            network = network.module
        elif isinstance(inner := getattr(network, "_orig_mod", None), nn.Module):
            network = inner
        else:
            return network


def _copied(network: Any) -> Any:  # noqa: ANN401 - of the same type
    try:
        return copy.deepcopy(network)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise MetarepError(f"{type(network).__name__} cannot be copied, which metarep does first: {reason}") from error
