"""The same as :mod:`block_curvature` for the first block, by ``first_block.c``, without storing the convolution's map.

The images have no derivative. So with mean ``m`` and covariance ``C`` of the patches and filters ``f``, every sum over
the map follows from ``m``, ``C f`` and ``C f_t``. All other values are needed at the maxima only.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarep.fast.block import signs, turned
from metarep.fast.c import call
from metarep.fast.first_block import backward, flat, forward, moments, unflat

_aten = torch.ops.aten


class ForwardTangent(NamedTuple):
    """Derivatives of the forward pass along ``v``."""

    f_t: Float[Tensor, "patch out"]
    covariance_f_t: Float[Tensor, "patch out"]
    scale_t: Float[Tensor, " out"]
    mean_t: Float[Tensor, " out"]
    shrink: Float[Tensor, " out"]


class FirstBlockCurvature:
    """The first block at some weights, with the methods of :class:`BlockCurvature`; ``x`` are images."""

    def __init__(self, x: Tensor, w: Tensor, scale: Tensor, shift: Tensor, eps: float) -> None:
        self.sign, self.scale, self.x = signs(scale), scale.abs(), x.contiguous()
        self.f, self.n = flat(turned(w, self.sign)), x.numel() // x.shape[1]
        self.patch_mean, self.covariance, _ = moments(self.x)
        self.covariance_f = self.covariance @ self.f
        self.mean, variance = self.patch_mean @ self.f, (self.f * self.covariance_f).sum(0)
        self.r = (variance + eps).rsqrt()
        self.s = self.scale * self.r / self.n
        factor = self.scale * self.r
        self.z, self.which = forward(self.x, self.f, factor, shift - factor * self.mean, torch.float32)
        self.u = (self._at_maxima(self.f) - self.mean.view(-1, 1, 1)) * self.r.view(-1, 1, 1)
        self.seen = turned(self.mean, self.sign), variance

    def back(self, above: Tensor) -> tuple[Tensor, list[Tensor]]:
        """As :meth:`BlockCurvature.back`; the first value is ``above`` itself."""
        self.products, self.sum_g = backward(self.x, above, self.which)
        self.sum_gu = self.r * ((self.f * self.products).sum(0) - self.mean * self.sum_g)
        statistics_part = torch.outer(self.patch_mean, self.sum_g) + self.covariance_f * (self.sum_gu * self.r)
        return above, self._of_weights((self.products - statistics_part) * (self.s * self.n), self.sum_gu, self.sum_g)

    def forward_tangent(self, _: None, w_t: Tensor, scale_t: Tensor, shift_t: Tensor) -> tuple[Tensor, ForwardTangent]:
        """As :meth:`BlockCurvature.forward_tangent`."""
        f_t, scale_t = flat(turned(w_t, self.sign)), turned(scale_t, self.sign)
        mean_t, covariance_f_t = self.patch_mean @ f_t, self.covariance @ f_t
        shrink = (self.f * covariance_f_t).sum(0) * self.r.square()  # -r_t / r
        # z_t = shift_t + u scale_t + u_t scale,  with  u_t = (y_t - mean_t) r - u shrink
        u_factor, gain = scale_t - self.scale * shrink, self.scale * self.r
        z_t = torch.addcmul(
            (shift_t - gain * mean_t).view(-1, 1, 1), self._at_maxima(f_t), gain.view(-1, 1, 1)
        ).addcmul_(self.u, u_factor.view(-1, 1, 1))
        return _aten.threshold_backward(z_t, self.z, 0), ForwardTangent(f_t, covariance_f_t, scale_t, mean_t, shrink)

    def backward_tangent(self, above_t: Tensor, parts: ForwardTangent) -> tuple[Tensor, list[Tensor]]:
        """As :meth:`BlockCurvature.backward_tangent`; the first value is ``above_t`` itself."""
        f_t, covariance_f_t, scale_t, mean_t, shrink = parts
        products_t, sum_g_t = backward(self.x, above_t, self.which)
        of_g_t = (self.f * products_t).sum(0) - self.mean * sum_g_t
        of_u_t = (f_t * self.products).sum(0) - mean_t * self.sum_g
        sum_gu_t = self.r * (of_g_t + of_u_t) - shrink * self.sum_gu
        s_t = scale_t * (self.r / self.n) - self.s * shrink
        of_y = self.s * self.sum_gu * self.r
        of_c = (s_t * self.sum_gu + self.s * sum_gu_t) * self.r - shrink * of_y
        statistics_part = (
            torch.outer(self.patch_mean, s_t * self.sum_g + self.s * sum_g_t)
            + self.covariance_f * of_c
            + covariance_f_t * of_y
        )
        d_f_t = self.n * (s_t * self.products + self.s * products_t - statistics_part)
        return above_t, self._of_weights(d_f_t, sum_gu_t, sum_g_t)

    def _of_weights(self, d_f: Tensor, d_scale: Tensor, d_shift: Tensor) -> list[Tensor]:
        return [turned(unflat(d_f), self.sign), turned(d_scale, self.sign), d_shift]

    def _at_maxima(self, filters: Float[Tensor, "patch out"]) -> Float[Tensor, "support out h2 w2"]:
        """Returns the convolution with ``filters`` at the pixels of the maxima; 0 where a maximum is not positive."""
        values = torch.empty(self.which.shape)
        call(
            "metarep_first_block_at", (self.x, filters, self.which, values), len(self.x), *self.x.shape[1:], len(self.r)
        )
        return values.permute(0, 3, 1, 2)
