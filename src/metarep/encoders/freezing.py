"""Freezing and learning rates by depth: which weights of an encoder a training changes, and how fast each layer."""

from typing import Literal, get_args

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from metarep.encoders.encoder import Encoder
from metarep.encoders.low_rank import MOST, is_rank, lend_low_rank
from metarep.encoders.normalisation import norm_parameters
from metarep.errors import MetarepError, unknown

Freeze = Literal["none", "stem", "all-but-last", "all-but-norms", "backbone"]
LORA = "all-but-lora:"  # and a rank
ADAPT = {"all": "none", "last-block": "all-but-last", "norms": "all-but-norms", "head": "backbone"}
"""What is frozen if only this part is adapted; ``lora:R`` adapts low-rank updates of the rank R."""


def frozen_for(adapt: str) -> str:
    """What is to be frozen, as :func:`freeze` takes it, so that a training adapts only this part.

    Args:
        adapt: ``all``, ``last-block``, ``norms``, ``lora:R`` or ``head``.

    Raises:
        MetarepError: there is no such part, or R is not a rank.

    >>> frozen_for("norms"), frozen_for("lora:8")
    ('all-but-norms', 'all-but-lora:8')
    """
    if adapt.startswith("lora:"):
        return check_freeze(f"{LORA}{adapt.removeprefix('lora:')}")
    if adapt not in ADAPT:
        raise unknown("part to adapt", adapt, [*ADAPT, "lora:8"])
    return ADAPT[adapt]


def check_freeze(how: str) -> str:
    """The given value, if :func:`freeze` takes it.

    Raises:
        MetarepError: it does not.

    >>> check_freeze("all-but-lora:8")
    'all-but-lora:8'
    """
    if how.startswith(LORA):
        rank = how.removeprefix(LORA)
        if not is_rank(rank):
            raise MetarepError(f"LoRA needs a rank from 1 to {MOST:,}, as in lora:8, and not {rank!r}")
    elif how not in get_args(Freeze):
        raise MetarepError(f"freeze must be one of {', '.join([*get_args(Freeze), LORA + '8'])}, not {how!r}")
    return how


def stages(body: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of a body in groups, from the images to the features: a stem, then one group a block.

    Modules that only hold others (``Sequential``, ``ModuleList``) are opened, any other child of the body is one block.
    A norm belongs to the layer before it, and a parameter of the body itself (a class token) to the stem.

    Args:
        body: any module whose children are registered in the order in which they run, as is usual.

    >>> body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU()))
    >>> [len(group) for group in stages(body)]
    [4, 2]
    """
    root = body
    while not root._parameters and len(inside := [each for each in root.children() if _has_weights(each)]) == 1:
        (root,) = inside
    groups: list[list[nn.Parameter]] = []
    _collect(root, groups)
    if any(parameter is not None for parameter in root._parameters.values()) and len(groups) > 1:
        groups[:2] = [groups[0] + groups[1]]
    blocks: list[list[nn.Parameter]] = []
    seen: set[int] = set()
    for group in groups:
        new = [parameter for parameter in group if id(parameter) not in seen]
        seen |= {id(parameter) for parameter in new}
        if new and blocks and all(parameter.ndim <= 1 for parameter in new):
            blocks[-1] = blocks[-1] + new
        elif new:
            blocks.append(new)
    return blocks


def _collect(module: nn.Module, groups: list[list[nn.Parameter]]) -> None:
    """Add a group for each child that computes something, and open those that only hold others."""
    groups.append(list(module.parameters(recurse=False)))
    for child in module.children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            _collect(child, groups)
        else:
            groups.append(list(child.parameters()))


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def freeze(encoder: Encoder, how: str) -> None:
    """Freeze a part of an encoder: training does not change it, and its batch norms keep their running statistics.

    Args:
        encoder: changed in place.
        how: ``none``; ``stem`` (the first layer); ``all-but-last`` (only the last block is trained); ``all-but-norms``
            (only scales and shifts of norm layers are trained); ``all-but-lora:R`` (only low-rank updates of the rank
            R are trained, which are added: :mod:`metarep.encoders.low_rank`); or ``backbone`` (nothing of the encoder
            is trained, so the method needs weights of its own, as ``anil`` and ``baseline`` have).

    Raises:
        MetarepError: ``how`` is unknown, or there would be nothing to freeze or to train.

    >>> from metarep.encoders import Preprocess, build_encoder
    >>> encoder = build_encoder("conv4", Preprocess((28, 28), 1, (0.0,), (1.0,)))
    >>> freeze(encoder, "all-but-last")
    >>> [name for name, weight in encoder.body.named_parameters() if weight.requires_grad]
    ['3.0.weight', '3.1.weight', '3.1.bias']
    """
    if check_freeze(how) == "none":
        return
    if how.startswith(LORA):
        lend_low_rank(encoder, int(how.removeprefix(LORA)))
        encoder.still = tuple(n for n, layer in encoder.body.named_modules() if isinstance(layer, _BatchNorm))
        return
    groups, norms = stages(encoder.body), norm_parameters(encoder.body)
    every = [parameter for group in groups for parameter in group]
    part = {
        "stem": groups[0] if groups else [],
        "all-but-last": [parameter for group in groups[:-1] for parameter in group],
        "all-but-norms": [parameter for parameter in every if id(parameter) not in norms],
        "backbone": every,
    }[how]
    if how == "all-but-norms" and not norms:
        raise MetarepError(f"{encoder.arch['name']} has no norm layers, so freeze={how} would leave nothing to train")
    for parameter in part:
        parameter.requires_grad_(False)
    still = [name for name, layer in encoder.body.named_modules() if isinstance(layer, _BatchNorm) and _frozen(layer)]
    encoder.still = ("",) if how == "backbone" else tuple(still)


def _frozen(layer: nn.Module) -> bool:
    return not any(parameter.requires_grad for parameter in layer.parameters())


def scale_rates(optimizer: Optimizer, encoder: Encoder, decay: float) -> None:
    """Give each layer of an encoder a learning rate of its own: ``decay`` times that of the layer behind it.

    Clark et al., ELECTRA, 2020; Bao et al., BEiT, 2022. The last block has ``decay`` times the full rate. Weights
    outside of the encoder have the full rate. Each group of the optimiser gets an entry ``scale``, which the training
    loop multiplies its rate by.

    Args:
        optimizer: its groups are divided by layers; it must not have taken a step yet.
        encoder: the encoder whose layers have their own rates.
        decay: above 0 and at most 1; 1 changes nothing.

    >>> import torch
    >>> from metarep.encoders import Preprocess, build_encoder
    >>> encoder = build_encoder("conv4", Preprocess((28, 28), 1, (0.0,), (1.0,)))
    >>> optimizer = torch.optim.SGD(encoder.parameters(), lr=1.0)
    >>> scale_rates(optimizer, encoder, 0.5)
    >>> [group["scale"] for group in optimizer.param_groups]
    [0.0625, 0.125, 0.25, 0.5]
    """
    if decay == 1:
        return
    groups = stages(encoder.body)
    scales = {
        id(parameter): decay ** (len(groups) - depth) for depth, group in enumerate(groups) for parameter in group
    }
    before, optimizer.param_groups = optimizer.param_groups, []
    for group in before:
        options = {name: value for name, value in group.items() if name != "params"}
        for scale in sorted({scales.get(id(parameter), 1.0) for parameter in group["params"]}):
            own = [parameter for parameter in group["params"] if scales.get(id(parameter), 1.0) == scale]
            optimizer.add_param_group({**options, "params": own, "scale": scale})
