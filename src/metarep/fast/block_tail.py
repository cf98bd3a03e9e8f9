"""The tail of a block (norm, 2x2 maximum and ReLU) by ``block_tail.c``, in one pass forward and one back.

With mean ``m`` and inverse deviation ``r`` over ``n`` pixels, let ``g`` be the gradient at the maxima where they are
positive, and ``u = (y - m) r``. Then

    d_shift = sum(g)    d_scale = sum(g u)    d_y = scale r (g at the maxima - (d_shift + d_scale u) / n)
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarep.fast.block import CHANNELS, Block, plain_tail, refuse_second, second, whole_sums
from metarep.fast.c import call, in_parts, library
from metarep.machine.ranks import ranks

WORTH_A_THREAD = 2**20  # numbers of the map; for less, starting a thread costs more than it saves


def compiles(y: Tensor) -> bool:
    """Returns whether ``block_tail`` supports this map: on the CPU, channels last, at least 2 x 2 pixels."""
    fits = y.ndim == 4 and y.dtype in (torch.float32, torch.bfloat16) and not y.shape[1] % CHANNELS and y.numel() > 0
    return (
        fits and min(y.shape[2:]) > 1 and y.is_contiguous(memory_format=torch.channels_last) and library() is not None
    )


def block_tail(
    y: Float[Tensor, "b out h w"],
    scale: Float[Tensor, " out"],
    shift: Float[Tensor, " out"],
    eps: float,
    rows: int | None = None,
    given: tuple[Tensor, Tensor] | None = None,
    *,
    across: bool = False,
) -> Block:
    """Computes the ReLU of the 2x2 maximum of the normalised map, in the map's dtype.

    Args:
        y: the map; ``compiles(y)`` is true.
        scale, shift, eps: parameters of the norm.
        rows: compute the statistics from the first so many images; None for all images.
        given: mean and variance to use instead, as constants.
        across: compute the statistics from the images of all ranks.
    """
    with torch.autocast("cpu", enabled=False):
        return Block(*_BlockTail.apply(y, scale, shift, eps, rows, *(given or (None, None)), across))


class _BlockTail(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        y: Tensor,
        scale: Tensor,
        shift: Tensor,
        eps: float,
        rows: int | None,
        mean: Tensor | None,
        variance: Tensor | None,
        across: bool,
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        n, out, h, w = y.shape
        ctx.eps, ctx.rows, ctx.given, ctx.across = eps, n if rows is None else rows, mean is not None, across
        last, sizes, parts = y.permute(0, 2, 3, 1), (h, w, out, y.dtype == torch.bfloat16), y.numel() // WORTH_A_THREAD
        norm = torch.empty(4, out)
        if mean is not None and variance is not None:
            norm[0], norm[1] = mean, variance

        def sums_of(start: int, stop: int) -> Tensor:
            sums = torch.zeros(2, out, dtype=torch.float64)
            call("metarep_map_moments", (last[start:stop], sums), stop - start, *sizes)
            return sums

        sums, ctx.pixels = _join([] if ctx.given else in_parts(sums_of, ctx.rows, parts)), ctx.rows * h * w
        if across:
            sums, ctx.pixels = whole_sums(sums, ctx.pixels)
        call("metarep_norm", (sums, scale, shift, norm), sums.numel() // (2 * out), out, ctx.pixels, float(eps))
        z = y.new_empty(n, h // 2, w // 2, out)
        which = torch.empty(z.shape, dtype=torch.uint8)

        def part(start: int, stop: int) -> None:
            call("metarep_block_tail", (last[start:stop], norm, z[start:stop], which[start:stop]), stop - start, *sizes)

        in_parts(part, n, parts)
        ctx.save_for_backward(y, scale, shift, norm, which)
        mean, variance = norm[:2].clone()
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return z.permute(0, 3, 1, 2), mean, variance, ctx.pixels

    @staticmethod
    def backward(ctx: Any, above: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        y, scale, shift, norm, which = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is requested: run plain operations that have one
            refuse_second(ctx.across)
            again = plain_tail(y, scale, shift, ctx.eps, ctx.rows, (norm[0], norm[1]) if ctx.given else None)
            return *second(again, above, [y, scale, shift]), *[None] * 5
        n, out, h, w = y.shape
        above, last = above.to(y.dtype).permute(0, 2, 3, 1).contiguous(), y.permute(0, 2, 3, 1)
        sizes, parts = (h, w, out, y.dtype == torch.bfloat16), y.numel() // WORTH_A_THREAD

        def sums_of(start: int, stop: int) -> Tensor:
            sums = torch.zeros(2, out)
            call(
                "metarep_block_tail_sums",
                (above[start:stop], which[start:stop], last[start:stop], sums),
                stop - start,
                *sizes,
            )
            return sums

        sums, constants, d_y = _join(in_parts(sums_of, n, parts)), torch.empty(4, out), torch.empty_like(last)
        if ctx.across:
            sums = whole_sums(sums, 0)[0]
        count = sums.numel() // (2 * out)
        call("metarep_norm_back", (sums, norm, constants), count, out, ctx.pixels, float(ctx.eps))
        if ctx.across:  # the mean of the ranks' gradients is taken later, and all have this sum now
            constants[:2] /= ranks()

        def part(start: int, stop: int) -> None:
            # Images before counted_stop contributed to the statistics, so the statistics' gradient reaches them.
            counted_stop = start if ctx.given else min(max(start, ctx.rows), stop)
            for a, b, counted in ((start, counted_stop, True), (counted_stop, stop, False)):
                each = (above[a:b], which[a:b], last[a:b], norm, constants, d_y[a:b])
                call("metarep_block_tail_back", each, b - a, *sizes, counted)

        in_parts(part, n, parts)
        return d_y.permute(0, 3, 1, 2), constants[0], constants[1], *[None] * 5


def _join(sums: list[Tensor]) -> Tensor:
    return sums[0] if len(sums) == 1 else torch.stack(sums) if sums else torch.empty(0)
