"""A first block on images: convolution, batch norm, maximum and ReLU in one go, a third faster on a processor.

A window of 2x2 outputs sees 4x4 inputs. One batch of matrix products with four shifted copies of the filters gives its
four outputs, each in a plane of its own, where maxima and their derivatives are plain arithmetic. The norm then sees
the maxima alone, a quarter of the map (where its scale is negative, the filter's sign is turned first). Mean and
variance of the map, and what they owe backward, follow from mean and covariance of the 4x4 inputs, which do not depend
on the filters: 16 by 16 for grey images.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

_aten = torch.ops.aten
CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # in torch's order, so that of equal maxima the same one is taken


class Block(NamedTuple):
    """What comes out, and the mean and (biased) variance that were used."""

    z: Float[Tensor, "b out h2 w2"]
    mean: Float[Tensor, " out"]
    variance: Float[Tensor, " out"]


def fits(x: Tensor) -> bool:
    """Whether ``first_block`` can take these images: on a processor, few channels, even sides, no gradient asked.

    Not under transforms of functions (vmap), nor while something else looks into the operations.
    """
    if x.device.type != "cpu" or x.requires_grad or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    plain = not torch._C._functorch.is_functorch_wrapped_tensor(x)  # pyright: ignore[reportAttributeAccessIssue]
    return plain and x.ndim == 4 and x.shape[1] <= 4 and x.shape[2] % 2 == x.shape[3] % 2 == 0 < x.numel()


def first_block(
    x: Float[Tensor, "b c h w"],
    weight: Float[Tensor, "out c 3 3"],
    scale: Float[Tensor, " out"],
    shift: Float[Tensor, " out"],
    eps: float,
    rows: int | None = None,
    given: tuple[Tensor, Tensor] | None = None,
) -> Block:
    """ReLU of the 2x2 maximum of the normalised 3x3 convolution, in bfloat16 under autocast.

    Args:
        x: images that ``fits`` says yes to; they get no gradient.
        weight: of the convolution, which pads by 1.
        scale, shift, eps: of the norm.
        rows: the statistics are those of the first so many images; None for all.
        given: mean and variance to use instead, as constants.
    """
    kind = torch.bfloat16 if torch.is_autocast_enabled("cpu") else x.dtype
    with torch.autocast("cpu", enabled=False):
        return Block(*_FirstBlock.apply(x.to(kind), weight, scale, shift, eps, rows, *(given or (None, None))))


def plain_block(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    shift: Tensor,
    eps: float,
    rows: int | None,
    given: Any,  # noqa: ANN401
) -> Tensor:
    """The same of operations that can be differentiated as often as one likes."""
    y = functional.conv2d(x, weight.to(x.dtype), padding=1)
    if given is None:
        mean = y[:rows].to(scale.dtype).mean((0, 2, 3))
        given = mean, (y[:rows] - mean.view(-1, 1, 1)).square().mean((0, 2, 3))
    factor = scale * (given[1] + eps).rsqrt()
    y = torch.addcmul((shift - given[0] * factor).view(-1, 1, 1), y, factor.view(-1, 1, 1))
    return functional.max_pool2d(y, 2).relu().to(x.dtype)


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
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.eps, ctx.rows, ctx.sign, ctx.owed = eps, rows, signs(scale), None
        filters, seen = spread(turned(weight, ctx.sign).to(x.dtype)), windows(x)
        if mean is None or variance is None:
            some = seen[:, : None if rows is None else rows * seen.shape[1] // len(x)].to(weight.dtype)
            middle, wide = some.mean(1), filters.to(weight.dtype)
            some = some - middle.unsqueeze(1)
            bent, means = (some @ some.mT / some.shape[1]) @ wide, middle @ wide  # of each corner and channel
            mean = means.mean(0)
            variance = ((wide * bent).sum(1) + (means - mean).square()).mean(0)
            ctx.owed = middle.view(1, -1, 1), bent, means - mean
        else:
            mean = turned(mean, ctx.sign)
        y = torch.bmm(seen.mT.expand(4, -1, -1), filters)
        pairs = torch.maximum(y[0::2], y[1::2])
        top = torch.maximum(pairs[0], pairs[1]).view(len(x), x.shape[2] // 2, x.shape[3] // 2, -1).permute(0, 3, 1, 2)
        z = functional.batch_norm(top, mean, variance, scale.abs(), shift, False, 0.0, eps).relu_()
        ctx.save_for_backward(x, weight, scale, shift, seen, y, pairs, top, mean, variance, z)
        mean, variance = turned(mean, ctx.sign).clone(), variance.clone()
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return z, mean, variance

    @staticmethod
    def backward(ctx: Any, above: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, weight, scale, shift, seen, y, pairs, top, mean, variance, z = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: with a graph of its own
            given = (turned(mean, ctx.sign), variance) if ctx.owed is None else None
            again = plain_block(x, weight, scale, shift, ctx.eps, ctx.rows, given)
            wanted = [tensor for tensor in (weight, scale, shift) if tensor.requires_grad]
            found = iter(torch.autograd.grad(again, wanted, above, create_graph=True))
            own = [next(found) if tensor.requires_grad else None for tensor in (weight, scale, shift)]
            return None, *own, *[None] * 4
        masked = _aten.threshold_backward(above, z, 0)
        own, d_scale, d_shift = _aten.native_batch_norm_backward(
            masked, top, scale.abs(), mean, variance, None, None, False, ctx.eps, [True] * 3
        )
        slope = _to_maxima(own.permute(0, 2, 3, 1).reshape_as(pairs[0]), y, pairs)
        d_filters = torch.bmm(seen.expand(4, -1, -1), slope).to(weight.dtype)
        if ctx.owed is not None:
            middle, bent, apart = ctx.owed
            inverse = (variance + ctx.eps).rsqrt()
            share = scale.abs() * inverse / 4  # ``bent`` and ``middle`` are means over windows of four places each
            factor = share * inverse * d_scale
            d_filters -= middle * (share * d_shift + factor * apart).unsqueeze(1) + factor * bent
        d_weight = turned(gather(d_filters, x.shape[1]), ctx.sign)
        return None, d_weight, turned(d_scale, ctx.sign), d_shift, *[None] * 4


def _to_maxima(own: Tensor, y: Tensor, pairs: Tensor) -> Tensor:
    """The gradient of maxima, put where they were: the later one of two has it where it is greater, else the first.

    What the later one does not have is found bit by bit, which bfloat16 does three times as fast as a difference.
    """
    slope, bits = torch.empty_like(y), {2: torch.int16, 4: torch.int32, 8: torch.int64}[y.element_size()]
    later = _aten.threshold_backward(own, pairs[1] - pairs[0], 0)
    for i, half in enumerate((own.view(bits) ^ later.view(bits), later.view(bits))):
        _aten.threshold_backward.grad_input(half.view(y.dtype), y[2 * i + 1] - y[2 * i], 0, grad_input=slope[2 * i + 1])
        torch.bitwise_xor(half, slope[2 * i + 1].view(bits), out=slope[2 * i].view(bits))
    return slope


def windows(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "inputs windows"]:
    """The 4x4 inputs of every 2x2 outputs: ``(16 * c, b * h / 2 * w / 2)``, for so they are copied in long runs."""
    padded = functional.pad(x, (1, 1, 1, 1)).contiguous()
    b, c, h, w = padded.shape
    image, channel, row, column = padded.stride()
    shape, steps = (4, 4, c, b, (h - 2) // 2, (w - 2) // 2), (row, column, channel, image, 2 * row, 2 * column)
    return padded.as_strided(shape, steps).reshape(16 * c, -1)


def spread(weight: Float[Tensor, "out c 3 3"]) -> Float[Tensor, "corner inputs out"]:
    """Filters at the four corners of a window: ``(4, 16 * c, out)``."""
    last = weight.permute(2, 3, 1, 0)
    each = [functional.pad(last, (0, 0, 0, 0, column, 1 - column, row, 1 - row)) for row, column in CORNERS]
    return torch.stack(each).flatten(1, 3)


def gather(filters: Float[Tensor, "corner inputs out"], channels: int) -> Float[Tensor, "out c 3 3"]:
    """The transpose of ``spread``: from a gradient at the corners to that of the filters."""
    cubes = filters.view(4, 4, 4, channels, -1)
    parts = [cube[row : row + 3, column : column + 3] for cube, (row, column) in zip(cubes, CORNERS, strict=True)]
    return torch.stack(parts).sum(0).permute(3, 2, 0, 1).contiguous()


def signs(scale: Float[Tensor, " out"]) -> Float[Tensor, " out"] | None:
    """-1 where a norm's scale is negative, else 1; None if it never is."""
    return torch.where(scale < 0, -1.0, 1.0).to(scale.dtype) if bool((scale < 0).any()) else None


def turned(tensor: Float[Tensor, "out *rest"], sign: Float[Tensor, " out"] | None) -> Float[Tensor, "out *rest"]:
    """With these signs along its first axis."""
    return tensor if sign is None else tensor * sign.view(-1, *[1] * (tensor.ndim - 1))
