"""Gradient and Hessian-vector product of Conv4's support loss, as formulas.

``H v`` is the derivative of the gradient along ``v``: each line of the forward pass and of the backward pass is
differentiated along ``v``, in the same order (Pearlmutter, Fast Exact Multiplication by the Hessian, 1994). Autograd
runs a backward pass through the backward pass instead, which takes more than twice as long. The blocks are in
:mod:`block_curvature`; :mod:`first_block_curvature` and :mod:`block_curvature_compiled` compute the same by C code.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from metarep.encoders.normalisation import Statistics
from metarep.fast.block import CHANNELS
from metarep.fast.block_curvature import BlockCurvature
from metarep.fast.block_curvature_compiled import CompiledCurvature
from metarep.fast.block_tail import compiles
from metarep.fast.first_block import fits
from metarep.fast.first_block_curvature import FirstBlockCurvature

Block = BlockCurvature | CompiledCurvature | FirstBlockCurvature


class Tape(NamedTuple):
    """The values of a gradient that its Hessian-vector product needs."""

    blocks: list[Block]
    features: Tensor
    head: Tensor
    shares: Tensor
    error: Tensor


def gradient(
    weights: Sequence[Tensor],
    x: Float[Tensor, "task support c h w"],
    labels: Int[Tensor, "task support"],
    eps: float,
    precision: torch.dtype,
) -> tuple[Float[Tensor, ""], list[Tensor], Tape, Statistics]:
    """Computes the support loss (the sum over tasks of the mean cross-entropy) and its gradient.

    Args:
        weights: filters, scale and shift of each block, then weight and bias of the head; the task axis first.
        x, labels: preprocessed images and their classes; the norms use the batch statistics of each task's ``x``.
        eps: of the norms.
        precision: dtype of the convolutions in :func:`hessian_vector_product`, except in the first block. The
            convolutions here have the dtype of the weights.

    Returns:
        The loss, its gradient (a part for each weight), the values for :func:`hessian_vector_product`, and the batch
        statistics of each block.
    """
    *body, head, bias = weights
    body, tasks, blocks = [part.flatten(0, 1) for part in body], len(x), []
    compiled = tasks == 1 and x.dtype == torch.float32 and x.device.type == "cpu"
    x = x.transpose(0, 1).flatten(1, 2)
    for w, scale, shift in zip(body[::3], body[1::3], body[2::3], strict=True):
        if not blocks and compiled and fits(x, w):
            blocks.append(FirstBlockCurvature(x, w, scale, shift, eps))
        elif blocks and compiled and compiles(x) and not len(w) % CHANNELS:
            blocks.append(CompiledCurvature(x, w, scale, shift, eps, precision))
        else:
            kind = precision if blocks else w.dtype
            blocks.append(BlockCurvature(x, w, scale, shift, eps, kind, image=bool(blocks), tasks=tasks))
        x = blocks[-1].z
    features = _rows(x, tasks)
    logs = torch.baddbmm(bias.unsqueeze(1), features, head.mT).log_softmax(-1)
    shares = logs.exp()
    error = (shares - functional.one_hot(labels, bias.shape[1])) / labels.shape[1]
    gradients, above = [error.mT @ features, error.sum(1)], _maps(error @ head, x)
    for block in reversed(blocks):
        above, own = block.back(above)
        gradients = [*(part.unflatten(0, (tasks, -1)) for part in own), *gradients]
    tape = Tape(blocks, features, head, shares, error)
    loss = functional.nll_loss(logs.flatten(0, 1), labels.flatten()) * tasks
    seen = [tuple(part.view(tasks, -1) for part in block.seen) for block in blocks]
    return loss, gradients, tape, seen  # pyright: ignore[reportReturnType]


def hessian_vector_product(tape: Tape, v: Sequence[Tensor]) -> list[Tensor]:
    """Returns the Hessian at the weights of the gradient times ``v``, which has the shapes of the weights."""
    *body, head_t, bias_t = v
    body, tasks = [part.flatten(0, 1) for part in body], len(bias_t)
    z_t, tangents = None, []
    for block, w_t, scale_t, shift_t in zip(tape.blocks, body[::3], body[1::3], body[2::3], strict=True):
        z_t, parts = block.forward_tangent(z_t, w_t, scale_t, shift_t)  # pyright: ignore[reportArgumentType]
        tangents.append(parts)
    assert z_t is not None
    features_t = _rows(z_t, tasks)
    logits_t = torch.baddbmm(bias_t.unsqueeze(1), tape.features, head_t.mT).baddbmm_(features_t, tape.head.mT)
    error_t = tape.shares * (logits_t - (tape.shares * logits_t).sum(-1, keepdim=True)) / logits_t.shape[1]
    gradients = [torch.baddbmm(error_t.mT @ tape.features, tape.error.mT, features_t), error_t.sum(1)]
    above_t = _maps(torch.baddbmm(error_t @ tape.head, tape.error, head_t), z_t)
    for block, parts in zip(reversed(tape.blocks), reversed(tangents), strict=True):
        above_t, own = block.backward_tangent(above_t, parts)
        gradients = [*(part.unflatten(0, (tasks, -1)) for part in own), *gradients]
    return gradients


def _rows(x: Float[Tensor, "n taskc h w"], tasks: int) -> Float[Tensor, "task n chw"]:
    """Returns the features of a map, with the task axis first."""
    return x.unflatten(1, (tasks, -1)).transpose(0, 1).flatten(2)


def _maps(rows: Float[Tensor, "task n chw"], like: Tensor) -> Float[Tensor, "n taskc h w"]:
    """Returns the map of such features; the inverse of ``_rows``."""
    return rows.transpose(0, 1).reshape_as(like)
