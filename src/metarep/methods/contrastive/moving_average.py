"""Moving averages of weights, for a target network (momentum encoder) that follows the trained network slowly."""

from typing import TypeVar

import torch
from torch import nn

from metarep.encoders.network_copies import copied

M = TypeVar("M", bound=nn.Module)


def frozen_copy(module: M) -> M:
    """A copy of a module with the same weights and statistics that shares nothing with it and is not trained.

    >>> layer = nn.Linear(2, 2)
    >>> target = frozen_copy(layer)
    >>> target.weight is layer.weight, target.weight.equal(layer.weight), target.weight.requires_grad
    (False, True, False)
    """
    return copied(module, apart=True)[0].requires_grad_(False)  # pyright: ignore[reportReturnType]


@torch.no_grad()
def follow(target: nn.Module, online: nn.Module, keep: float) -> None:
    """Update the moving average: ``target = keep * target + (1 - keep) * online`` for every parameter.

    Parameters are paired by name, without the prefixes of ``torch.compile`` and ``DataParallel``. Buffers do not
    change: in training, the target uses its own batch statistics and gathers its own running statistics. The running
    statistics of the online network belong to other weights.

    Args:
        target: changed in place.
        online: the trained network, of the same architecture.
        keep: share of its weights that the target keeps; 1 freezes it, 0 copies the online network.

    >>> online, target = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(online.weight, 1.0), nn.init.zeros_(target.weight)
    >>> follow(target, online, keep=0.9)
    >>> round(target.weight.item(), 4)
    0.1
    """
    new = {_bare(name): parameter for name, parameter in online.named_parameters()}
    old = {_bare(name): parameter for name, parameter in target.named_parameters()}
    torch._foreach_lerp_([old[name] for name in new], list(new.values()), 1 - keep)


def _bare(name: str) -> str:
    """The name of a parameter without the prefixes of wrappers."""
    return ".".join(part for part in name.split(".") if part not in ("_orig_mod", "module"))
