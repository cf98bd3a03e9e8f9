"""Convolution with filters of each task's own: all its ways against one convolution a task, in float64."""

import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional

from metarep.fast import convolution
from metarep.fast.convolution import conv, conv_back, convolve

TASKS, N, OUT = 3, 4, 5


def drawn(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def inputs(channels: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """A map, filters, and the gradient of what comes out."""
    x = drawn(N, TASKS * channels, 7, 6, seed=0, dtype=dtype).contiguous(memory_format=torch.channels_last)
    return x, drawn(TASKS * OUT, channels, 3, 3, seed=1, dtype=dtype), drawn(N, TASKS * OUT, 7, 6, seed=2, dtype=dtype)


def one_by_one(x: Tensor, w: Tensor) -> Tensor:
    parts = zip(x.chunk(TASKS, 1), w.chunk(TASKS), strict=True)
    return torch.cat([functional.conv2d(own, filters, padding=1) for own, filters in parts], 1)


@pytest.mark.parametrize("channels", [1, 9], ids=["by patches", "grouped"])
def test_it_is_one_convolution_a_task(channels: int) -> None:
    x, w, above = inputs(channels)
    assert convolution._by_patches(x, TASKS) == (channels < convolution.FEW)
    x.requires_grad_()
    w.requires_grad_()
    want = one_by_one(x, w)
    wanted = torch.autograd.grad(want, [x, w], above)
    torch.testing.assert_close(conv(x, w, TASKS), want)
    torch.testing.assert_close(torch.autograd.grad(conv(x, w, TASKS), [x, w], above), wanted)
    with torch.no_grad():
        torch.testing.assert_close(convolve(x, w, TASKS), want)
        torch.testing.assert_close(conv_back(above, x, w, TASKS, image=True), wanted)
        assert conv_back(above, x, w, TASKS, image=False)[0] is above


@pytest.mark.parametrize("channels", [1, 9], ids=["by patches", "grouped"])
def test_it_can_be_differentiated_twice(channels: int) -> None:
    x, w, _ = inputs(channels)
    few = x[:2, :, :3, :3].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x, w: conv(x, w, TASKS), (few, w.requires_grad_()), fast_mode=True)


def rounded(x: Tensor) -> Tensor:
    """To ten bits, as matrix units do."""
    return ((x.view(torch.int32) + (1 << 12)) & -(1 << 13)).view(torch.float32)


@pytest.mark.parametrize("channels", [1, 9], ids=["by patches", "grouped"])
def test_what_matrix_units_round_is_not_lost(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of rounded numbers, as a GPU makes them: three of them are as good as one of whole numbers."""
    x, w, above = inputs(channels, torch.float32)
    x64, w64, above64 = (each.double() for each in (x, w, above))
    wanted = [convolve(x64, w64, TASKS), *conv_back(above64, x64, w64, TASKS, image=True)]
    plain, back = functional.conv2d, torch.ops.aten.convolution_backward

    monkeypatch.setattr(convolution, "_rounds", lambda x, tasks: x.dtype == torch.float32)
    monkeypatch.setattr(convolution.functional, "conv2d", lambda x, w, **own: plain(rounded(x), rounded(w), **own))
    product = torch.bmm

    def bmm(a: Tensor, b: Tensor, **own: Tensor) -> Tensor:
        return product(rounded(a.contiguous()), rounded(b.contiguous()), **own)

    monkeypatch.setattr(convolution.torch, "bmm", bmm)

    class Operators:
        @staticmethod
        def convolution_backward(d_y: Tensor, x: Tensor, w: Tensor, *rest: object) -> object:
            return back(rounded(d_y), rounded(x), rounded(w), *rest)

    monkeypatch.setattr(convolution, "_aten", Operators)

    def off(found: list[Tensor]) -> float:
        return max(((one - two).norm() / two.norm()).item() for one, two in zip(found, wanted, strict=True))

    def by_autograd(rough: bool) -> list[Tensor]:
        leaves = x.clone().requires_grad_(), w.clone().requires_grad_()
        y = conv(*leaves, TASKS, rough=rough)
        return [y.detach(), *torch.autograd.grad(y, leaves, above)]

    def by_hand(rough: bool) -> list[Tensor]:
        return [convolve(x, w, TASKS, rough=rough), *conv_back(above, x, w, TASKS, image=True, rough=rough)]

    for way in (by_autograd, by_hand):
        assert off(way(rough=False)) < 1e-6
        assert off(way(rough=True)) > 1e-4
