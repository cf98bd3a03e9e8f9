"""What follows a convolution, for the maps of many tasks: in fewest passes, by kernels, and as plain operations."""

import importlib.util
import os

import pytest
import torch
from torch import Generator, Tensor

from metarep.fast import stacked_tail
from metarep.fast.stacked_tail import Moments, fused_tail, plain_tail

EPS = 1e-5
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
COMPILES = torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def inputs(side: int, channels: int, dtype: torch.dtype, n: int = 5) -> Inputs:
    """A map, its scale and shift, and the gradient of what comes out."""
    g = Generator().manual_seed(side)
    y, above = (torch.randn(n, channels, s, s, generator=g, dtype=torch.float64) + 0.3 for s in (side, side // 2))
    scale, shift = torch.rand(channels, 1, 1, generator=g), 0.3 * torch.randn(channels, 1, 1, generator=g)
    y, above = (each.to(DEVICE, dtype, memory_format=torch.channels_last) for each in (y, above))
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    return y, scale.to(DEVICE, kind), shift.to(DEVICE, kind), above


def moments(channels: int, dtype: torch.dtype) -> Moments:
    g = Generator().manual_seed(1)
    mean, variance = torch.randn(channels, 1, 1, generator=g), 0.5 + torch.rand(channels, 1, 1, generator=g)
    return Moments(mean.to(DEVICE, dtype), variance.to(DEVICE, dtype))


def outcome(tail: object, given: Inputs, rows: int, of: Moments | None) -> list[Tensor]:
    y, scale, shift, above = (each.clone() for each in given)
    wanted = [each.requires_grad_() for each in (y, scale, shift)]
    z, used = tail(*wanted, EPS, rows, of)  # pyright: ignore[reportCallIssue]
    return [z.detach(), used.mean.detach(), used.variance.detach(), *torch.autograd.grad(z, wanted, above)]


@pytest.mark.parametrize("side", [6, 7, 28])
@pytest.mark.parametrize("rows", [5, 2])
@pytest.mark.parametrize("own", [True, False])
def test_fewest_passes_are_plain_operations(side: int, rows: int, own: bool) -> None:
    given = inputs(side, 12, torch.float64)
    of = None if own else moments(12, torch.float64)
    for one, two in zip(outcome(fused_tail, given, rows, of), outcome(plain_tail, given, rows, of), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
@pytest.mark.skipif(not COMPILES, reason="needs a GPU, or TRITON_INTERPRET=1")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("side", [6, 7, 28])
@pytest.mark.parametrize("rows", [5, 2])
@pytest.mark.parametrize("own", [True, False])
def test_kernels_are_plain_operations(
    dtype: torch.dtype, side: int, rows: int, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from metarep.fast import tail_kernels

    monkeypatch.setattr(stacked_tail, "_kernels", lambda y: tail_kernels)
    given = inputs(side, 70, dtype)
    of = None if own else moments(70, torch.float32)
    found = outcome(fused_tail, given, rows, of)
    doubles = tuple(each.double() for each in given)
    assert found[0].dtype == dtype
    kept = None if of is None else Moments(of.mean.double(), of.variance.double())
    coarse = 2e-2 if dtype == torch.bfloat16 else 1e-4
    for one, two in zip(found, outcome(plain_tail, doubles, rows, kept), strict=True):
        assert (one.double() - two).norm() < coarse * two.norm()
