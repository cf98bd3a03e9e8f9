"""The passes forward and back of a block of Conv4 under the support's batch statistics, and their derivatives.

With ``c = y - mean``, ``r = (variance + eps) ** -0.5`` and ``s = scale * r / n``, over ``n`` pixels, a block is

    y = x * w        u = max(c) r        z = relu(scale u + shift)        g = gradient at z, where z > 0
    d_y = s (n up(g) - sum(g) - sum(g u) r c)

A name that ends in ``_t`` is a derivative along ``v`` (a tangent): each line of a pass is differentiated, in the same
order. Convolutions of tangents may have a lower precision. An error in a tangent does not grow, but an error in a
gradient changes the next inner step.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from metarep.fast.block import signs, turned
from metarep.fast.convolution import conv_back, convolve

_aten = torch.ops.aten
_PIXEL_AXES = (0, 2, 3)


class BackwardValues(NamedTuple):
    """Values of the backward pass: the gradients ``g`` and (in the precision of tangents) ``d_y``, and their sums."""

    g: Tensor
    d_y: Tensor
    sum_g: Tensor
    sum_gu: Tensor


class ForwardTangent(NamedTuple):
    """Derivatives of the forward pass along ``v``."""

    x_t: Tensor | None
    w_t: Tensor
    scale_t: Tensor
    y_t: Tensor
    mean_t: Tensor
    shrink: Tensor
    u_t: Tensor


class BlockCurvature:
    """One block at some weights. The constructor runs the forward pass.

    Args:
        x: the input.
        w, scale, shift: weights of the block.
        eps: of the norm.
        precision: dtype of the convolutions along ``v``.
        image: whether ``x`` has a gradient; images have none.
        tasks: number of channel groups, each with its own filters; see :mod:`convolution`.

    Attributes:
        z: the output.
        seen: mean and variance of each channel. The other tensors with one number for each channel have a shape that
            broadcasts to the map.
    """

    def __init__(
        self,
        x: Tensor,
        w: Tensor,
        scale: Tensor,
        shift: Tensor,
        eps: float,
        precision: torch.dtype,
        *,
        image: bool,
        tasks: int = 1,
    ) -> None:
        self.sign, self.image, self.precision, self.tasks = signs(scale), image, precision, tasks
        w = turned(w, self.sign).contiguous(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
        y = convolve(x, w, tasks)
        mean = y.mean(_PIXEL_AXES, keepdim=True)
        self.c = y.sub_(mean)
        variance, self.n = self.c.square().mean(_PIXEL_AXES, keepdim=True), self.c.numel() // self.c.shape[1]
        self.r, self.scale = (variance + eps).rsqrt(), scale.abs().view(-1, 1, 1)
        self.s = self.scale * self.r / self.n
        top, self.max_positions = _aten.max_pool2d_with_indices(self.c, [2, 2])
        self.u = top.mul_(self.r)
        self.z = torch.addcmul(shift.view(-1, 1, 1), self.u, self.scale).relu_()
        self.x, self.w = x, w
        self.seen = turned(mean.flatten(), self.sign), variance.flatten()

    def back(self, above: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns the gradients of ``x`` and of filters, scale and shift, from the gradient ``above`` of ``z``."""
        g = _aten.threshold_backward(above, self.z, 0)
        sum_g, sum_gu = g.sum(_PIXEL_AXES, keepdim=True), (g * self.u).sum(_PIXEL_AXES, keepdim=True)
        d_y = self._up(g * (self.s * self.n))
        d_y -= torch.addcmul(self.s * sum_g, self.c, self.s * sum_gu * self.r)
        below, d_w = conv_back(d_y, self.x, self.w, self.tasks, image=self.image)
        self.x, self.w = self.x.to(self.precision), self.w.to(self.precision)
        self.backward_values = BackwardValues(g, d_y.to(self.precision), sum_g, sum_gu)
        return below, self._of_weights(d_w, sum_gu, sum_g)

    def forward_tangent(
        self, x_t: Tensor | None, w_t: Tensor, scale_t: Tensor, shift_t: Tensor
    ) -> tuple[Tensor, ForwardTangent]:
        """Returns ``z_t``, and the values that :meth:`backward_tangent` needs."""
        x_t = None if x_t is None else x_t.to(self.x.dtype)
        w_t = turned(w_t, self.sign).to(self.w.dtype, memory_format=torch.channels_last)
        scale_t = turned(scale_t, self.sign).view(-1, 1, 1)
        y_t = convolve(self.x, w_t, self.tasks, rough=True)
        if x_t is not None:
            y_t += convolve(x_t, self.w, self.tasks, rough=True)
        y_t = y_t.to(self.c.dtype)
        mean_t = y_t.mean(_PIXEL_AXES, keepdim=True)
        shrink = (self.c * y_t).mean(_PIXEL_AXES, keepdim=True) * self.r.square()  # -r_t / r
        u_t = torch.addcmul((self._at_maxima(y_t) - mean_t) * self.r, self.u, shrink, value=-1)
        z_t = torch.addcmul(torch.addcmul(shift_t.view(-1, 1, 1), self.u, scale_t), u_t, self.scale)
        return _aten.threshold_backward(z_t, self.z, 0), ForwardTangent(x_t, w_t, scale_t, y_t, mean_t, shrink, u_t)

    def backward_tangent(self, above_t: Tensor, parts: ForwardTangent) -> tuple[Tensor, list[Tensor]]:
        """Returns the derivatives along ``v`` of the values that :meth:`back` returns."""
        x_t, w_t, scale_t, y_t, mean_t, shrink, u_t = parts
        g_t = _aten.threshold_backward(above_t, self.z, 0)
        sum_g_t = g_t.sum(_PIXEL_AXES, keepdim=True)
        sum_gu_t = torch.addcmul(g_t * self.u, self.backward_values.g, u_t).sum(_PIXEL_AXES, keepdim=True)
        s_t = torch.addcmul(scale_t * (self.r / self.n), self.s, shrink, value=-1)
        d_y_t = self._up(torch.addcmul(self.backward_values.g * (s_t * self.n), g_t, self.s * self.n))
        # d_y_t -= the derivative of  s (sum_g + sum_gu r c),  in which r_t = -shrink r and c_t = y_t - mean_t
        of_y = self.s * self.backward_values.sum_gu * self.r
        of_c = torch.addcmul(s_t * self.backward_values.sum_gu, self.s, sum_gu_t) * self.r - shrink * of_y
        of_1 = torch.addcmul(s_t * self.backward_values.sum_g, self.s, sum_g_t) - of_y * mean_t
        d_y_t -= torch.addcmul(torch.addcmul(of_1, self.c, of_c), y_t, of_y)
        below_t, d_w_t = conv_back(d_y_t.to(self.x.dtype), self.x, self.w, self.tasks, image=self.image, rough=True)
        if x_t is not None:
            more, d_w_more = conv_back(self.backward_values.d_y, x_t, w_t, self.tasks, image=True, rough=True)
            below_t, d_w_t = (below_t + more).to(g_t.dtype), (d_w_t + d_w_more).to(g_t.dtype)
        return below_t, self._of_weights(d_w_t, sum_gu_t, sum_g_t)

    def _of_weights(self, d_w: Tensor, d_scale: Tensor, d_shift: Tensor) -> list[Tensor]:
        return [turned(d_w, self.sign), turned(d_scale.flatten(), self.sign), d_shift.flatten()]

    def _up(self, g: Tensor) -> Tensor:
        """Puts values of the maxima at their pixels of the map, with zeros elsewhere."""
        return _aten.max_pool2d_with_indices_backward(
            g, self.c, [2, 2], [2, 2], [0, 0], [1, 1], False, self.max_positions
        )

    def _at_maxima(self, full: Tensor) -> Tensor:
        """Returns the values of a map at the pixels of the maxima; the transpose of ``_up``."""
        return full.flatten(2).gather(2, self.max_positions.flatten(2)).view_as(self.max_positions)
