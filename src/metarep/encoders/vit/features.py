"""Features of a vision transformer: what is taken of its last tokens."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metarep.encoders.vit.block import AttentionPool

FeatureKind = Literal["class", "mean", "both", "attention"]


def features_of(
    tokens: Float[Tensor, "b n width"],
    patches: int,
    kind: FeatureKind,
    pool: AttentionPool | None = None,
    project: nn.Linear | None = None,
) -> Float[Tensor, "b dim"]:
    """The features of images, from their tokens after the last norm.

    Args:
        tokens: the class token, if there is one, comes first; patches come last.
        patches: number of patches.
        kind: ``class``, ``mean``, ``both`` or ``attention``; see :class:`metarep.encoders.ViT`.
        pool: pools the tokens for ``attention``.
        project: the linear projection at the end, if there is one.

    >>> features_of(torch.tensor([[[1.0], [2.0], [4.0]]]), 2, "both")
    tensor([[1., 3.]])
    """
    if pool is not None:
        rows = [pool(tokens)]
    else:
        rows = [tokens[:, 0]] if kind in ("class", "both") else []
        rows += [tokens[:, -patches:].mean(1)] if kind in ("mean", "both") else []
    return torch.cat([row if project is None else project(row) for row in rows], dim=1)
