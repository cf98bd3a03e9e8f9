"""The same as :mod:`block_curvature` by ``block_tail.c`` and ``tail_curvature.c``, in float32, for one task.

The convolutions are torch's. The rest of the block is one pass forward and one back, and the same along ``v``.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from metarep.fast.c import call
from metarep.fast.convolution import conv_back


class ForwardTangent(NamedTuple):
    """Derivatives of the forward pass along ``v``; ``norm_t`` has four numbers for each channel, for the C code."""

    x_t: Tensor
    w_t: Tensor
    scale_t: Tensor
    y_t: Tensor
    norm_t: Tensor


class CompiledCurvature:
    """One block at some weights, with the methods of :class:`BlockCurvature`; ``x`` has a gradient."""

    def __init__(self, x: Tensor, w: Tensor, scale: Tensor, shift: Tensor, eps: float, precision: torch.dtype) -> None:
        self.x, self.w = (each.contiguous(memory_format=torch.channels_last) for each in (x, w))
        self.scale, self.eps, self.precision = scale.contiguous(), eps, precision
        self.y = _last(functional.conv2d(self.x, self.w, padding=1))
        self.n, h, wide, out = self.y.shape
        sums, self.norm, self.sizes = torch.zeros(2, out, dtype=torch.float64), torch.empty(4, out), (h, wide, out)
        call("metarep_map_moments", (self.y, sums), self.n, *self.sizes, False)
        call("metarep_norm", (sums, scale, shift, self.norm), 1, out, self.y.numel() // out, eps)
        z = torch.empty(self.n, h // 2, wide // 2, out)
        self.which = torch.empty(z.shape, dtype=torch.uint8)
        call("metarep_block_tail", (self.y, self.norm, z, self.which), self.n, *self.sizes, False)
        self.z, self.seen = z.permute(0, 3, 1, 2), (self.norm[0], self.norm[1])

    def back(self, above: Tensor) -> tuple[Tensor, list[Tensor]]:
        """As :meth:`BlockCurvature.back`."""
        out, self.above = self.sizes[2], _last(above)
        sums, self.norm_back, d_y = torch.zeros(2, out), torch.empty(4, out), torch.empty_like(self.y)
        call("metarep_block_tail_sums", (self.above, self.which, self.y, sums), self.n, *self.sizes, False)
        call("metarep_norm_back", (sums, self.norm, self.norm_back), 1, out, self.y.numel() // out, self.eps)
        given = (self.above, self.which, self.y, self.norm, self.norm_back, d_y)
        call("metarep_block_tail_back", given, self.n, *self.sizes, False, True)
        d_y = d_y.permute(0, 3, 1, 2)
        below, d_w = conv_back(d_y, self.x, self.w, image=True)
        self.x, self.w, self.d_y = (each.to(self.precision) for each in (self.x, self.w, d_y))
        return below, [d_w, self.norm_back[0], self.norm_back[1]]

    def forward_tangent(
        self, x_t: Tensor, w_t: Tensor, scale_t: Tensor, shift_t: Tensor
    ) -> tuple[Tensor, ForwardTangent]:
        """As :meth:`BlockCurvature.forward_tangent`."""
        x_t, w_t = (each.to(self.precision, memory_format=torch.channels_last) for each in (x_t, w_t))
        y_t = functional.conv2d(self.x, w_t, padding=1).add_(functional.conv2d(x_t, self.w, padding=1))
        y_t, norm_t, z_t = _last(y_t), torch.empty(4, self.sizes[2]), torch.empty(self.which.shape)
        scale_t = scale_t.contiguous()
        given = (self.y, y_t, self.which, self.norm, self.scale, scale_t, shift_t.contiguous(), norm_t, z_t)
        call("metarep_tail_along", given, self.n, *self.sizes, y_t.dtype == torch.bfloat16, self.eps)
        return z_t.permute(0, 3, 1, 2), ForwardTangent(x_t, w_t, scale_t, y_t, norm_t)

    def backward_tangent(self, above_t: Tensor, parts: ForwardTangent) -> tuple[Tensor, list[Tensor]]:
        """As :meth:`BlockCurvature.backward_tangent`."""
        x_t, w_t, scale_t, y_t, norm_t = parts
        back_t, d_y_t = torch.empty(2, self.sizes[2]), torch.empty_like(y_t)
        maps = (self.above, _last(above_t), self.which, self.y, y_t)
        given = (*maps, self.norm, scale_t, norm_t, self.norm_back, back_t, d_y_t)
        call("metarep_tail_back_along", given, self.n, *self.sizes, y_t.dtype == torch.bfloat16, self.eps)
        below_t, d_w_t = conv_back(d_y_t.permute(0, 3, 1, 2), self.x, self.w, image=True)
        more, d_w_more = conv_back(self.d_y, x_t, w_t, image=True)
        return (below_t + more).float(), [(d_w_t + d_w_more).float(), back_t[0], back_t[1]]


def _last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous()
