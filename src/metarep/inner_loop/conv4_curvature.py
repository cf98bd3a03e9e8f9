"""Gradient and Hessian-vector product of Conv4's support loss, written out.

``H v`` is the derivative of the gradient along ``v``: each line of the pass forward and of the pass back is
differentiated along ``v``, in the same order (Pearlmutter, Fast Exact Multiplication by the Hessian, 1994). Autograd's
way, a backward pass through the backward pass, takes more than twice the time. The blocks are in
:mod:`block_curvature`; :mod:`first_block_curvature` and :mod:`block_curvature_compiled` are the same by C code.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from metarep.encoders.block import CHANNELS
from metarep.encoders.block_tail import compiles
from metarep.encoders.first_block import fits
from metarep.inner_loop.block_curvature import BlockCurvature
from metarep.inner_loop.block_curvature_compiled import CompiledCurvature
from metarep.inner_loop.first_block_curvature import FirstBlockCurvature
from metarep.normalisation import Statistics

Block = BlockCurvature | CompiledCurvature | FirstBlockCurvature


class Tape(NamedTuple):
    """Everything that ``bend`` needs of a gradient."""

    blocks: list[Block]
    features: Tensor
    head: Tensor
    shares: Tensor
    error: Tensor


def gradient(
    weights: Sequence[Tensor],
    x: Float[Tensor, "support c h w"],
    labels: Int[Tensor, " support"],
    eps: float,
    precision: torch.dtype,
) -> tuple[Float[Tensor, ""], list[Tensor], Tape, Statistics]:
    """The mean cross-entropy, its gradient, what ``bend`` needs, and the statistics of each block.

    Args:
        weights: filters, scale and shift of each block, then weight and bias of the head.
        x, labels: preprocessed images and their classes; the norms use the statistics of ``x``.
        eps: of the norms.
        precision: of the convolutions in ``bend`` but the first; here they have that of the weights.
    """
    *body, head, bias = weights
    blocks: list[Block] = []
    for w, scale, shift in zip(body[::3], body[1::3], body[2::3], strict=True):
        if not blocks and x.dtype == torch.float32 and fits(x, w):
            blocks.append(FirstBlockCurvature(x, w, scale, shift, eps))
        elif blocks and x.dtype == torch.float32 and compiles(x) and not len(w) % CHANNELS:
            blocks.append(CompiledCurvature(x, w, scale, shift, eps, precision))
        else:
            kind = precision if blocks else w.dtype
            blocks.append(BlockCurvature(x, w, scale, shift, eps, kind, image=bool(blocks)))
        x = blocks[-1].z
    features = x.flatten(1)
    logs = torch.addmm(bias, features, head.T).log_softmax(1)
    shares = logs.exp()
    error = (shares - functional.one_hot(labels, len(bias))) / len(labels)
    found, above = [error.T @ features, error.sum(0)], (error @ head).view_as(x)
    for block in reversed(blocks):
        above, own = block.back(above)
        found = [*own, *found]
    tape = Tape(blocks, features, head, shares, error)
    return functional.nll_loss(logs, labels), found, tape, [block.seen for block in blocks]


def bend(tape: Tape, v: Sequence[Tensor]) -> list[Tensor]:
    """The Hessian where the gradient was taken, times ``v``, which has the shapes of the weights."""
    *body, head_t, bias_t = v
    z_t, along = None, []
    for block, w_t, scale_t, shift_t in zip(tape.blocks, body[::3], body[1::3], body[2::3], strict=True):
        z_t, parts = block.along(z_t, w_t, scale_t, shift_t)  # pyright: ignore[reportArgumentType]
        along.append(parts)
    assert z_t is not None
    features_t = z_t.flatten(1)
    logits_t = torch.addmm(bias_t, tape.features, head_t.T).addmm_(features_t, tape.head.T)
    error_t = tape.shares * (logits_t - (tape.shares * logits_t).sum(1, keepdim=True)) / len(logits_t)
    found = [torch.addmm(error_t.T @ tape.features, tape.error.T, features_t), error_t.sum(0)]
    above_t = torch.addmm(error_t @ tape.head, tape.error, head_t).view_as(z_t)
    for block, parts in zip(reversed(tape.blocks), reversed(along), strict=True):
        above_t, own = block.back_along(above_t, parts)
        found = [*own, *found]
    return found
