"""Gradient and Hessian-vector product of Conv4's support loss, written out.

``H v`` is the derivative of the gradient along ``v``: each line of the pass forward and of the pass back is
differentiated along ``v``, in the same order (Pearlmutter, Fast Exact Multiplication by the Hessian, 1994). Autograd's
way, a backward pass through the backward pass, takes more than twice the time. A name that ends in ``_t`` is a
derivative along ``v``.

With ``c = y - mean``, ``r = (variance + eps) ** -0.5`` and ``s = scale * r / n``, over ``n`` places, a block is

    y = x * w        u = max(c) r        z = relu(scale u + shift)        g = gradient at z, where z > 0
    d_y = s (n up(g) - sum(g) - sum(g u) r c)
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
_PLACES = (0, 2, 3)


class Forward(NamedTuple):
    """Of one block; ``places`` are those of the maxima, ``sign`` what its filters are turned by.

    ``x`` and ``w`` are in the precision of ``bend``; what there is one of a channel broadcasts against the map.
    """

    x: Tensor
    w: Tensor
    c: Tensor
    n: int
    r: Tensor
    s: Tensor
    scale: Tensor
    places: Tensor
    u: Tensor
    z: Tensor
    sign: Tensor | None


class Back(NamedTuple):
    """Of one block: the gradients ``g`` and ``d_y``, the latter in the precision of ``bend``; and the sums."""

    g: Tensor
    d_y: Tensor
    sum_g: Tensor
    sum_gu: Tensor


class Tape(NamedTuple):
    """Everything that ``bend`` needs of a gradient."""

    forward: list[Forward]
    back: list[Back]
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
    forward, seen = [], []
    for w, scale, shift in zip(body[::3], body[1::3], body[2::3], strict=True):
        sign = signs(scale)
        w = turned(w, sign).contiguous(memory_format=torch.channels_last)
        y = functional.conv2d(x.contiguous(memory_format=torch.channels_last), w, padding=1)
        mean = y.mean(_PLACES, keepdim=True)
        c = y.sub_(mean)
        variance, n = c.square().mean(_PLACES, keepdim=True), c.numel() // c.shape[1]
        r, scale = (variance + eps).rsqrt(), scale.abs().view(-1, 1, 1)
        top, places = _aten.max_pool2d_with_indices(c, [2, 2])
        u = top.mul_(r)
        z = torch.addcmul(shift.view(-1, 1, 1), u, scale).relu_()
        forward.append(Forward(x, w, c, n, r, scale * r / n, scale, places, u, z, sign))
        seen.append((turned(mean.flatten(), sign), variance.flatten()))
        x = z
    features = x.flatten(1)
    logs = torch.addmm(bias, features, head.T).log_softmax(1)
    shares = logs.exp()
    error = (shares - functional.one_hot(labels, len(bias))) / len(labels)
    found, back, above = [error.T @ features, error.sum(0)], [], (error @ head).view_as(x)
    for i, one in reversed(list(enumerate(forward))):
        g = _aten.threshold_backward(above, one.z, 0)
        sum_g, sum_gu = g.sum(_PLACES, keepdim=True), (g * one.u).sum(_PLACES, keepdim=True)
        d_y = _up(g * (one.s * one.n), one)
        d_y -= torch.addcmul(one.s * sum_g, one.c, one.s * sum_gu * one.r)
        above, d_w = _conv_back(d_y, one.x, one.w, image=i > 0)
        found = [turned(d_w, one.sign), turned(sum_gu.flatten(), one.sign), sum_g.flatten(), *found]
        kind = precision if i else d_y.dtype
        forward[i] = one._replace(x=one.x.to(kind), w=one.w.to(kind))
        back.insert(0, Back(g, d_y.to(kind), sum_g, sum_gu))
    return functional.nll_loss(logs, labels), found, Tape(forward, back, features, head, shares, error), seen


def bend(tape: Tape, v: Sequence[Tensor]) -> list[Tensor]:
    """The Hessian where the gradient was taken, times ``v``, which has the shapes of the weights."""
    *body, head_t, bias_t = v
    z_t, along = None, []
    for one, w_t, scale_t, shift_t in zip(tape.forward, body[::3], body[1::3], body[2::3], strict=True):
        x_t = None if z_t is None else z_t.to(one.x.dtype)
        w_t = turned(w_t, one.sign).to(one.w.dtype, memory_format=torch.channels_last)
        scale_t = turned(scale_t, one.sign).view(-1, 1, 1)
        y_t = functional.conv2d(one.x, w_t, padding=1)
        if x_t is not None:
            y_t += functional.conv2d(x_t, one.w, padding=1)
        y_t = y_t.to(one.c.dtype)
        mean_t = y_t.mean(_PLACES, keepdim=True)
        shrink = (one.c * y_t).mean(_PLACES, keepdim=True) * one.r.square()  # -r_t / r
        u_t = torch.addcmul((_at(y_t, one) - mean_t) * one.r, one.u, shrink, value=-1)
        z_t = torch.addcmul(torch.addcmul(shift_t.view(-1, 1, 1), one.u, scale_t), u_t, one.scale)
        z_t = _aten.threshold_backward(z_t, one.z, 0)
        along.append((x_t, w_t, scale_t, y_t, mean_t, shrink, u_t))
    assert z_t is not None
    features_t = z_t.flatten(1)
    logits_t = torch.addmm(bias_t, tape.features, head_t.T).addmm_(features_t, tape.head.T)
    error_t = tape.shares * (logits_t - (tape.shares * logits_t).sum(1, keepdim=True)) / len(logits_t)
    found = [torch.addmm(error_t.T @ tape.features, tape.error.T, features_t), error_t.sum(0)]
    above_t = torch.addmm(error_t @ tape.head, tape.error, head_t).view_as(z_t)
    for one, back, parts in zip(reversed(tape.forward), reversed(tape.back), reversed(along), strict=True):
        x_t, w_t, scale_t, y_t, mean_t, shrink, u_t = parts
        g_t = _aten.threshold_backward(above_t, one.z, 0)
        sum_g_t = g_t.sum(_PLACES, keepdim=True)
        sum_gu_t = torch.addcmul(g_t * one.u, back.g, u_t).sum(_PLACES, keepdim=True)
        s_t = torch.addcmul(scale_t * (one.r / one.n), one.s, shrink, value=-1)
        d_y_t = _up(torch.addcmul(back.g * (s_t * one.n), g_t, one.s * one.n), one)
        # d_y_t -= the derivative of  s (sum_g + sum_gu r c),  in which r_t = -shrink r and c_t = y_t - mean_t
        of_y = one.s * back.sum_gu * one.r
        of_c = torch.addcmul(s_t * back.sum_gu, one.s, sum_gu_t) * one.r - shrink * of_y
        of_1 = torch.addcmul(s_t * back.sum_g, one.s, sum_g_t) - of_y * mean_t
        d_y_t -= torch.addcmul(torch.addcmul(of_1, one.c, of_c), y_t, of_y)
        above_t, d_w_t = _conv_back(d_y_t.to(one.x.dtype), one.x, one.w, image=x_t is not None)
        if x_t is not None:
            more, d_w_more = _conv_back(back.d_y, x_t, w_t, image=True)
            above_t, d_w_t = (above_t + more).to(g_t.dtype), (d_w_t + d_w_more).to(g_t.dtype)
        found = [turned(d_w_t, one.sign), turned(sum_gu_t.flatten(), one.sign), sum_g_t.flatten(), *found]
    return found


def _conv_back(d_y: Tensor, x: Tensor, w: Tensor, *, image: bool) -> tuple[Tensor, Tensor]:
    """Gradients of a convolution's input (where there is none: of its output) and filters."""
    sizes = None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1
    d_x, d_w, _ = _aten.convolution_backward(d_y, x, w, *sizes, [image, True, False])
    return d_x if image else d_y, d_w


def _up(g: Tensor, one: Forward) -> Tensor:
    """From the maxima to their places, zero elsewhere."""
    return _aten.max_pool2d_with_indices_backward(g, one.c, [2, 2], [2, 2], [0, 0], [1, 1], False, one.places)


def _at(full: Tensor, one: Forward) -> Tensor:
    """The transpose of ``_up``: what stands at the places of the maxima."""
    return full.flatten(2).gather(2, one.places.flatten(2)).view_as(one.places)
