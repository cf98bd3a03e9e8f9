"""Conv4's first block on images by ``first_block.c``, in one pass that does not store the convolution's map.

Let ``p`` be the patches (9 numbers for each channel), ``m`` and ``C`` their mean and covariance, ``f`` the filters and
``r`` the inverse deviation of the norm. The mean and variance of the map are ``m f`` and ``f C f``. Let ``g`` be the
gradient at positive maxima and ``G`` the sum of ``p g`` over their pixels. Then the gradients are

    d_scale = r (f G - m f sum(g))        d_filters = scale r (G - m sum(g) - C f r d_scale)
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarep.fast.block import CHANNELS, Block, plain_block, refuse_second, second, signs, turned, whole_sums
from metarep.fast.c import call, in_parts, library

WORTH_A_THREAD = 2**21  # numbers of the map; for less, starting a thread costs more than it saves


def fits(x: Tensor, weight: Float[Tensor, "out c 3 3"]) -> bool:
    """Returns whether ``first_block`` supports these: images without a gradient, of few channels and even sides."""
    small = x.ndim == 4 and x.shape[1] <= 4 and x.shape[2] % 2 == x.shape[3] % 2 == 0 < x.numel()
    kinds = x.dtype in (torch.float32, torch.bfloat16) and weight.dtype == torch.float32
    return small and kinds and not weight.shape[0] % CHANNELS and not x.requires_grad and library() is not None


def first_block(
    x: Float[Tensor, "b c h w"],
    weight: Float[Tensor, "out c 3 3"],
    scale: Float[Tensor, " out"],
    shift: Float[Tensor, " out"],
    eps: float,
    rows: int | None = None,
    given: tuple[Tensor, Tensor] | None = None,
    *,
    across: bool = False,
) -> Block:
    """Computes the ReLU of the 2x2 maximum of the normalised 3x3 convolution.

    It computes in float32; the output is bfloat16 under autocast, else in the dtype of ``x``. Where the norm's scale is
    negative, the sign of the filter is flipped, so that the maximum can be taken before the norm.

    Args:
        x: images; ``fits(x, weight)`` is true. They get no gradient.
        weight: filters of the convolution, which pads by 1.
        scale, shift, eps: parameters of the norm.
        rows: compute the statistics from the first so many images; None for all images.
        given: mean and variance to use instead, as constants.
        across: compute the statistics from the images of all ranks.
    """
    kind = torch.bfloat16 if torch.is_autocast_enabled("cpu") else x.dtype
    with torch.autocast("cpu", enabled=False):
        return Block(*_FirstBlock.apply(x, weight, scale, shift, eps, rows, *(given or (None, None)), kind, across))


def flat(weight: Float[Tensor, "out c 3 3"]) -> Float[Tensor, "patch out"]:
    """Returns filters in the layout that the C code reads."""
    return weight.permute(1, 2, 3, 0).reshape(-1, len(weight)).contiguous()


def unflat(filters: Float[Tensor, "patch out"]) -> Float[Tensor, "out c 3 3"]:
    """Returns filters in torch's layout; the inverse of :func:`flat`."""
    return filters.view(-1, 3, 3, filters.shape[1]).permute(3, 0, 1, 2)


def moments(
    x: Float[Tensor, "b c h w"], across: bool = False
) -> tuple[Float[Tensor, " patch"], Float[Tensor, "patch patch"], int]:
    """Returns mean and covariance of the 3x3 patches of all images, with zeros beyond the edge; and their number.

    Args:
        x: images.
        across: count the images of all ranks.
    """
    n = x.shape[1] * 9

    def part(start: int, stop: int) -> tuple[Tensor, Tensor]:
        sums, products = x.new_zeros(n, dtype=torch.float64), x.new_zeros(n, n, dtype=torch.float64)
        call("metarep_patch_moments", (x[start:stop], sums, products), stop - start, *x.shape[1:])
        return sums, products

    parts = in_parts(part, len(x), x.numel() * n // WORTH_A_THREAD)
    pixels = x.numel() // x.shape[1]
    mean = torch.stack([sums for sums, _ in parts]).sum(0)
    products = torch.stack([products for _, products in parts]).sum(0)
    if across:
        both, pixels = whole_sums(torch.cat([mean.unsqueeze(0), products]), pixels)
        mean, products = both[0], both[1:]
    mean, products = mean / pixels, products / pixels
    covariance = products.triu() + products.triu(1).T - torch.outer(mean, mean)
    return mean.to(x.dtype), covariance.to(x.dtype), pixels


def forward(
    x: Float[Tensor, "b c h w"],
    filters: Float[Tensor, "patch out"],
    factor: Float[Tensor, " out"],
    offset: Float[Tensor, " out"],
    kind: torch.dtype,
) -> tuple[Float[Tensor, "b out h2 w2"], Tensor]:
    """Returns the output in dtype ``kind``, and the position of each maximum in its 2x2 window.

    The position is 0 to 3, row by row; it is 4 where the output is not positive.
    """
    shape = (len(x), x.shape[2] // 2, x.shape[3] // 2, len(factor))
    z, which = torch.empty(shape, dtype=kind), torch.empty(shape, dtype=torch.uint8)

    def part(start: int, stop: int) -> None:
        given = (x[start:stop], filters, factor, offset, z[start:stop], which[start:stop])
        call("metarep_first_block", given, stop - start, *x.shape[1:], shape[3], kind == torch.bfloat16)

    in_parts(part, len(x), which.numel() * 4 // WORTH_A_THREAD)
    return z.permute(0, 3, 1, 2), which


def backward(
    x: Float[Tensor, "b c h w"], above: Float[Tensor, "b out h2 w2"], which: Tensor
) -> tuple[Float[Tensor, "patch out"], Float[Tensor, " out"]]:
    """Returns sums over all windows with a positive maximum: of the gradient times the patch, and of the gradient."""
    above, shape = above.permute(0, 2, 3, 1).contiguous(), (x.shape[1] * 9, which.shape[3])

    def part(start: int, stop: int) -> tuple[Tensor, Tensor]:
        sums = x.new_zeros(shape), x.new_zeros(shape[1])
        given = (x[start:stop], above[start:stop], which[start:stop], *sums)
        call("metarep_first_block_back", given, stop - start, *x.shape[1:], shape[1], above.dtype == torch.bfloat16)
        return sums

    parts = in_parts(part, len(x), which.numel() * 4 // WORTH_A_THREAD)
    products, sums = parts[0]
    for more in parts[1:]:
        products += more[0]
        sums += more[1]
    return products, sums


class _FirstBlock(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        weight: Tensor,
        scale: Tensor,
        shift: Tensor,
        eps: float,
        rows: int | None,
        mean: Tensor | None,
        variance: Tensor | None,
        kind: torch.dtype,
        across: bool,
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        x = x.to(torch.float32).contiguous()
        ctx.eps, ctx.rows, ctx.sign, ctx.own_statistics, ctx.across = eps, rows, signs(scale), None, across
        pixels = 0
        filters = flat(turned(weight, ctx.sign))
        if mean is None or variance is None:
            patch_mean, covariance, pixels = moments(x[:rows], across)
            covariance_f = covariance @ filters
            mean, variance = patch_mean @ filters, (filters * covariance_f).sum(0)
            ctx.own_statistics = patch_mean, covariance_f
        else:
            mean = turned(mean, ctx.sign)
        inverse = (variance + eps).rsqrt()
        factor = scale.abs() * inverse
        z, which = forward(x, filters, factor, shift - factor * mean, kind)
        ctx.save_for_backward(x, weight, scale, shift, filters, mean, variance, inverse, factor, which)
        mean, variance = turned(mean, ctx.sign).clone(), variance.clone()
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return z, mean, variance, pixels

    @staticmethod
    def backward(ctx: Any, above: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, weight, scale, shift, filters, mean, variance, inverse, factor, which = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is requested: run plain operations that have one
            refuse_second(ctx.across)
            given = (turned(mean, ctx.sign), variance) if ctx.own_statistics is None else None
            again = plain_block(x, weight, scale, shift, ctx.eps, ctx.rows, given)
            return None, *second(again, above, [weight, scale, shift]), *[None] * 6
        products, d_shift = backward(x, above, which)
        d_scale = inverse * ((filters * products).sum(0) - mean * d_shift)
        if ctx.own_statistics is not None:
            patch_mean, covariance_f = ctx.own_statistics
            products -= torch.outer(patch_mean, d_shift) + covariance_f * (inverse * d_scale)
        d_weight = unflat(factor * products)
        return None, turned(d_weight, ctx.sign), turned(d_scale, ctx.sign), d_shift, *[None] * 6
