"""Moving averages of weights: the target, or momentum encoder, that follows the trained one slowly."""

from typing import TypeVar

import torch
from torch import nn

from metarep.network_copies import copied

M = TypeVar("M", bound=nn.Module)


def frozen_copy(module: M) -> M:
    """A copy with the same weights and statistics that shares nothing, gets no gradient and no optimiser."""
    return copied(module, apart=True)[0].requires_grad_(False)  # pyright: ignore[reportReturnType]


@torch.no_grad()
def follow(target: nn.Module, online: nn.Module, keep: float) -> None:
    """``target = keep * target + (1 - keep) * online`` for every parameter, in one fused call.

    Parameters are paired by name, whatever ``torch.compile`` or ``DataParallel`` adds to it. Buffers are left alone: in
    training a target normalises by the statistics of its own batches and gathers its own running ones, as every layer
    does; those of the online network belong to other weights.

    Args:
        target: changed in place.
        online: of the same architecture.
        keep: 1 freezes the target, 0 copies.
    """
    new = {_bare(name): parameter for name, parameter in online.named_parameters()}
    old = {_bare(name): parameter for name, parameter in target.named_parameters()}
    torch._foreach_lerp_([old[name] for name in new], list(new.values()), 1 - keep)


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in ("_orig_mod", "module"))
