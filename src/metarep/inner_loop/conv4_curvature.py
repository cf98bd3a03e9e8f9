"""Gradient and Hessian-vector product of Conv4's support loss, written out.

``H v`` is the derivative of the gradient along ``v``: each line of the pass forward and of the pass back, differentiated
along ``v``, in the same order (Pearlmutter, Fast Exact Multiplication by the Hessian, 1994). Autograd's way, a backward
pass through the backward pass, takes more than twice the time. A name that ends in ``_t`` is a derivative along ``v``.

With ``c = y - mean``, ``r = (variance + eps) ** -0.5`` and ``k = scale * r``, over ``n`` places, a block is

    y = x * w        u = max(c) r        z = relu(scale u + shift)        g = gradient at z, where z > 0
    d_y = k up(g) - (sum(g) + sum(g u) r c) k / n
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from metarep.encoders.first_block import signs, turned
from metarep.normalisation import Statistics

_aten = torch.ops.aten


class Forward(NamedTuple):
    """Of one block; ``places`` are those of the maxima, ``sign`` what its filters were turned by."""

    x: Tensor
    w: Tensor
    c: Tensor
    r: Tensor
    scale: Tensor
    places: Tensor
    u: Tensor
    z: Tensor
    sign: Tensor | None


class Back(NamedTuple):
    """Of one block: the gradient at its maxima and of its map, and their sums ``sum(g)`` and ``sum(g u)``."""

    g: Tensor
    d_y: Tensor
    d_shift: Tensor
    d_scale: Tensor


class Along(NamedTuple):
    """Derivatives of a block's forward pass along ``v``."""

    x: Tensor | None
    w: Tensor
    y: Tensor
    mean: Tensor
    r: Tensor
    scale: Tensor
    u: Tensor


class Tape(NamedTuple):
    """Everything that ``bend`` needs of a gradient."""

    forward: list[Forward]
    back: list[Back]
    features: Tensor
    head: Tensor
    shares: Tensor
    error: Tensor
    precision: torch.dtype


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
        precision: of the convolutions in ``bend``; here they have that of the weights.
    """
    *body, head, bias = weights
    forward, seen = [], []
    for w, scale, shift in zip(body[::3], body[1::3], body[2::3], strict=True):
        sign = signs(scale)
        w = turned(w, sign).contiguous(memory_format=torch.channels_last)
        y = functional.conv2d(x.contiguous(memory_format=torch.channels_last), w, padding=1)
        mean = y.mean((0, 2, 3))
        c = y.sub_(_wide(mean))
        variance = c.square().mean((0, 2, 3))
        r = (variance + eps).rsqrt()
        top, places = _aten.max_pool2d_with_indices(c, [2, 2])
        u = top.mul_(_wide(r))
        z = torch.addcmul(_wide(shift), u, _wide(scale.abs())).relu_()
        forward.append(Forward(x, w, c, r, scale.abs(), places, u, z, sign))
        seen.append((turned(mean, sign), variance))
        x = z
    features = x.flatten(1)
    logs = torch.addmm(bias, features, head.T).log_softmax(1)
    shares = logs.exp()
    error = (shares - functional.one_hot(labels, len(bias))) / len(labels)
    found, back = [error.T @ features, error.sum(0)], []
    above = (error @ head).view_as(x)
    for i, one in reversed(list(enumerate(forward))):
        g = _aten.threshold_backward(above, one.z, 0)
        d_shift, d_scale = g.sum((0, 2, 3)), (g * one.u).sum((0, 2, 3))
        k = one.scale * one.r
        share = k / (one.c.numel() // len(k))
        d_y = _up(g * _wide(k), one)
        d_y -= torch.addcmul(_wide(share * d_shift), one.c, _wide(share * one.r * d_scale))
        above, d_w = _conv_back(d_y, one.x, one.w, image=i > 0)
        found = [turned(d_w, one.sign), turned(d_scale, one.sign), d_shift, *found]
        back.insert(0, Back(g, d_y.to(precision), d_shift, d_scale))
    forward = [one._replace(x=one.x.to(precision), w=one.w.to(precision)) for one in forward]
    return functional.nll_loss(logs, labels), found, Tape(forward, back, features, head, shares, error, precision), seen


def bend(tape: Tape, v: Sequence[Tensor]) -> list[Tensor]:
    """The Hessian where the gradient was taken, times ``v``, which has the shapes of the weights."""
    *body, head_t, bias_t = v
    x_t, along = None, []
    for one, w_t, scale_t, shift_t in zip(tape.forward, body[::3], body[1::3], body[2::3], strict=True):
        w_t = turned(w_t, one.sign).to(tape.precision, memory_format=torch.channels_last)
        scale_t = turned(scale_t, one.sign)
        y_t = functional.conv2d(one.x, w_t, padding=1)
        if x_t is not None:
            y_t += functional.conv2d(x_t, one.w, padding=1)
        y_t = y_t.to(one.c.dtype)
        mean_t = y_t.mean((0, 2, 3))
        bent = (one.c * y_t).mean((0, 2, 3)) * one.r.square()  # -r_t / r
        u_t = torch.addcmul((_at(y_t, one) - _wide(mean_t)) * _wide(one.r), one.u, _wide(bent), value=-1)
        along.append(Along(x_t, w_t, y_t, mean_t, -bent * one.r, scale_t, u_t))
        z_t = torch.addcmul(torch.addcmul(_wide(shift_t), one.u, _wide(scale_t)), u_t, _wide(one.scale))
        z_t = _aten.threshold_backward(z_t, one.z, 0)
        x_t = z_t.to(tape.precision)
    features_t = z_t.flatten(1)
    logits_t = torch.addmm(bias_t, tape.features, head_t.T).addmm_(features_t, tape.head.T)
    error_t = tape.shares * (logits_t - (tape.shares * logits_t).sum(1, keepdim=True)) / len(logits_t)
    found = [torch.addmm(error_t.T @ tape.features, tape.error.T, features_t), error_t.sum(0)]
    above_t = torch.addmm(error_t @ tape.head, tape.error, head_t).view_as(z_t)
    for one, back, at in zip(reversed(tape.forward), reversed(tape.back), reversed(along), strict=True):
        g_t = _aten.threshold_backward(above_t, one.z, 0)
        d_shift_t = g_t.sum((0, 2, 3))
        d_scale_t = torch.addcmul(g_t * one.u, back.g, at.u).sum((0, 2, 3))
        k, k_t = one.scale * one.r, torch.addcmul(at.scale * one.r, one.scale, at.r)
        d_y_t = _up(torch.addcmul(back.g * _wide(k_t), g_t, _wide(k)), one)
        # The rest of d_y is (d_shift + d_scale r c) k / n, and c_t is y_t - mean_t.
        n, kr = one.c.numel() // len(k), k * one.r
        of_y = kr * back.d_scale / n
        of_c = ((k_t * one.r + k * at.r) * back.d_scale + kr * d_scale_t) / n
        of_1 = (k_t * back.d_shift + k * d_shift_t) / n - of_y * at.mean
        d_y_t -= torch.addcmul(torch.addcmul(_wide(of_1), one.c, _wide(of_c)), at.y, _wide(of_y))
        above_t, d_w_t = _conv_back(d_y_t.to(tape.precision), one.x, one.w, image=at.x is not None)
        if at.x is not None:
            more, d_w_more = _conv_back(back.d_y, at.x, at.w, image=True)
            above_t, d_w_t = (above_t + more).to(g_t.dtype), d_w_t + d_w_more
        found = [turned(d_w_t.to(g_t.dtype), one.sign), turned(d_scale_t, one.sign), d_shift_t, *found]
    return found


def _wide(v: Tensor) -> Tensor:
    return v.view(-1, 1, 1)


def _conv_back(d_y: Tensor, x: Tensor, w: Tensor, *, image: bool) -> tuple[Tensor, Tensor]:
    """Gradients of a convolution's input (or none) and filters."""
    wanted = [image, True, False]
    return _aten.convolution_backward(d_y, x, w, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted)[:2]


def _up(g: Tensor, one: Forward) -> Tensor:
    """From the maxima to their places, zero elsewhere."""
    return _aten.max_pool2d_with_indices_backward(g, one.c, [2, 2], [2, 2], [0, 0], [1, 1], False, one.places)


def _at(full: Tensor, one: Forward) -> Tensor:
    """The transpose of ``_up``: what stands at the places of the maxima."""
    return full.flatten(2).gather(2, one.places.flatten(2)).view_as(one.places)
