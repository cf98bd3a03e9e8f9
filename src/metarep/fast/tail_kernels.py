"""The steps of :mod:`stacked_tail` as Triton kernels, each in one pass over a map in channels-last memory."""
# ruff: noqa: ANN001, ANN202, E501  (arguments of Triton kernels have no types)
# pyright: basic, reportMissingImports=false, reportIndexIssue=false

import functools
import inspect

import torch
import triton
import triton.language as tl
from torch import Tensor

WINDOWS, CHANNELS = 16, 64  # 2x2 windows and channels of one program
STRIPS = 32  # number of programs that share the sums of a channel
DEAD = 4  # position of a maximum whose output is zero; other positions in the window are 0 to 3, row by row


def _jit(kernel):
    """Compiles a kernel by Triton, without wrappers that check its arguments at run time."""
    return triton.jit(inspect.unwrap(kernel))


@_jit
def _window(window, height, width, high, wide):
    """Returns the index of a window's first pixel in a map of ``high`` x ``wide``, its image, its row and its column."""
    image = window // (height * width)
    row = window % (height * width) // width
    column = window % width
    return ((image * high + 2 * row) * wide + 2 * column).to(tl.int64), image, row, column


@_jit
def _forward(y, factor, offset, z, top, which, windows, height, width, high, wide, channels, P: tl.constexpr, C: tl.constexpr):  # fmt: skip
    window = tl.program_id(0) * P + tl.arange(0, P)
    c = tl.program_id(1) * C + tl.arange(0, C)
    mask = (window < windows)[:, None] & (c < channels)[None, :]
    corner, _, _, _ = _window(window, height, width, high, wide)
    start = y + corner[:, None] * channels + c[None, :]
    best = tl.load(start, mask=mask, other=0.0).to(tl.float32)
    at = tl.zeros([P, C], tl.int32)
    for k in tl.static_range(1, 4):
        other = tl.load(start + ((k // 2) * wide + k % 2) * channels, mask=mask, other=0.0).to(tl.float32)
        at = tl.where(other > best, k, at)
        best = tl.where(other > best, other, best)
    a = tl.load(factor + c, mask=c < channels, other=0.0)
    b = tl.load(offset + c, mask=c < channels, other=0.0)
    value = best * a[None, :] + b[None, :]
    out = tl.where(value <= 0, 0.0, value)  # NaN passes, so that it is noticed later
    to = window.to(tl.int64)[:, None] * channels + c[None, :]
    tl.store(z + to, out.to(z.dtype.element_ty), mask=mask)
    tl.store(top + to, best.to(top.dtype.element_ty), mask=mask)
    tl.store(which + to, tl.where(value <= 0, 4, at).to(tl.uint8), mask=mask)


@_jit
def _sums(above, top, which, mean, r, partial_sums, windows, channels, each, P: tl.constexpr, C: tl.constexpr):
    c = tl.program_id(1) * C + tl.arange(0, C)
    m = tl.load(mean + c, mask=c < channels, other=0.0)
    of_g = tl.zeros([C], tl.float32)
    of_gu = tl.zeros([C], tl.float32)
    first = tl.program_id(0) * each
    for start in range(first, tl.minimum(first + each, windows), P):
        window = start + tl.arange(0, P)
        mask = (window < tl.minimum(first + each, windows))[:, None] & (c < channels)[None, :]
        at = window.to(tl.int64)[:, None] * channels + c[None, :]
        live = tl.load(which + at, mask=mask, other=4) < 4
        g = tl.where(live, tl.load(above + at, mask=mask, other=0.0).to(tl.float32), 0.0)
        u = tl.load(top + at, mask=mask, other=0.0).to(tl.float32) - m[None, :]
        of_g += tl.sum(g, 0)
        of_gu += tl.sum(g * u, 0)
    to = partial_sums + tl.program_id(0) * 2 * channels + c
    tl.store(to, of_g, mask=c < channels)
    tl.store(to + channels, of_gu * tl.load(r + c, mask=c < channels, other=0.0), mask=c < channels)


@_jit
def _backward(above, which, y, factor, of_y, offset, d_y, windows, height, width, high, wide, rows, channels, OWN: tl.constexpr, P: tl.constexpr, C: tl.constexpr):  # fmt: skip
    window = tl.program_id(0) * P + tl.arange(0, P)  # windows, including those cut off by the edge
    c = tl.program_id(1) * C + tl.arange(0, C)
    mask = (window < windows)[:, None] & (c < channels)[None, :]
    corner, image, row, column = _window(window, (high + 1) // 2, (wide + 1) // 2, high, wide)
    whole = mask & ((row < height) & (column < width))[:, None]
    at = ((image * height + row) * width + column).to(tl.int64)[:, None] * channels + c[None, :]
    k_of = tl.load(which + at, mask=whole, other=4).to(tl.int32)
    a = tl.load(factor + c, mask=c < channels, other=0.0)
    g = tl.load(above + at, mask=whole, other=0.0).to(tl.float32) * a[None, :]
    if OWN:
        s = tl.load(of_y + c, mask=c < channels, other=0.0)
        o = tl.load(offset + c, mask=c < channels, other=0.0)
    start = corner[:, None] * channels + c[None, :]
    for k in tl.static_range(4):
        inside_map = mask & ((2 * row + k // 2 < high) & (2 * column + k % 2 < wide))[:, None]
        to = start + ((k // 2) * wide + k % 2) * channels
        d = tl.where(k_of == k, g, 0.0)
        if OWN:
            inside = inside_map & (image < rows)[:, None]
            value = tl.load(y + to, mask=inside, other=0.0).to(tl.float32)
            d -= tl.where(inside, o[None, :] + s[None, :] * value, 0.0)
        tl.store(d_y + to, d.to(d_y.dtype.element_ty), mask=inside_map)


@functools.cache
def compiles() -> bool:
    """Returns whether Triton can compile these kernels; it needs a C compiler too."""
    try:
        forward(torch.zeros(1, 1, 2, 2, device="cuda"), *torch.zeros(2, 1, 1, 1, device="cuda"))
    except Exception:  # any part may be missing, and stacked_tail then runs torch's operations
        return False
    return True


def forward(y: Tensor, factor: Tensor, offset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the output, the maxima, and the position of each maximum in its window (``DEAD`` for a zero output)."""
    y = y.contiguous(memory_format=torch.channels_last)
    n, channels, high, wide = y.shape
    height, width = high // 2, wide // 2
    z, top, which = (
        torch.empty(n, channels, height, width, dtype=kind, device=y.device, memory_format=torch.channels_last)
        for kind in (y.dtype, y.dtype, torch.uint8)
    )
    windows = n * height * width
    grid = triton.cdiv(windows, WINDOWS), triton.cdiv(channels, CHANNELS)
    _forward[grid](y, factor, offset, z, top, which, windows, height, width, high, wide, channels, WINDOWS, CHANNELS)
    return z, top, which


def sums(above: Tensor, mean: Tensor, r: Tensor, top: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the sum of the gradient where the output is positive, and of it times the normalised maxima.

    The order of additions is always the same.
    """
    windows, channels = which[:, 0].numel(), which.shape[1]
    each = triton.cdiv(triton.cdiv(windows, STRIPS), WINDOWS) * WINDOWS
    strips = triton.cdiv(windows, each)
    partial_sums = torch.empty(strips, 2, channels, device=above.device)
    grid = strips, triton.cdiv(channels, CHANNELS)
    _sums[grid](above, top, which, mean, r, partial_sums, windows, channels, each, WINDOWS, CHANNELS)
    of_g, of_gu = partial_sums.sum(0)
    return of_g.view_as(mean), of_gu.view_as(mean)


def backward(
    above: Tensor,
    y: Tensor,
    factor: Tensor,
    of_y: Tensor | None,
    offset: Tensor | None,
    rows: int,
    top: Tensor,  # noqa: ARG001
    which: Tensor,
) -> Tensor:
    """Returns the gradient of the map."""
    y = y.contiguous(memory_format=torch.channels_last)
    n, channels, high, wide = y.shape
    height, width = high // 2, wide // 2
    d_y = torch.empty_like(y)
    windows = n * ((high + 1) // 2) * ((wide + 1) // 2)
    grid = triton.cdiv(windows, WINDOWS), triton.cdiv(channels, CHANNELS)
    own = of_y is not None
    _backward[grid](
        above, which, y, factor, of_y if own else factor, offset if own else factor, d_y,
        windows, height, width, high, wide, rows, channels, own, WINDOWS, CHANNELS,
    )  # fmt: skip
    return d_y
