"""The convolution of small maps as a matrix product, against torch's own in float64."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from metarep.encoders.resnet12 import Convolution3x3
from metarep.fast import small_map

SHAPES = {"4x4": (3, 5, 4, 4), "one pixel": (2, 3, 1, 1), "wide": (2, 4, 2, 5), "one image": (1, 4, 5, 5)}


def drawn(*shape: int, seed: int) -> Tensor:
    """Whole numbers, so that bfloat16 holds them and sums of their products are exact."""
    return torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_it_is_the_convolution_and_its_derivatives_of_both_orders(shape: tuple[int, ...]) -> None:
    x, weight = drawn(*shape, seed=0).requires_grad_(), drawn(7, shape[1], 3, 3, seed=1).requires_grad_()
    above = drawn(shape[0], 7, *shape[2:], seed=2)
    y, want = small_map._Convolution.apply(x, weight), functional.conv2d(x, weight, padding=1)
    assert torch.equal(y, want)
    assert y.is_contiguous(memory_format=torch.channels_last)
    wanted = torch.autograd.grad(want, [x, weight], above)
    assert all(map(torch.equal, torch.autograd.grad(y, [x, weight], above), wanted))
    assert torch.autograd.gradgradcheck(small_map._Convolution.apply, (x, weight), fast_mode=True)


@pytest.mark.parametrize(
    ("channels", "side", "takes"), [(320, 5, True), (319, 5, False), (320, 6, False)], ids=["small", "narrow", "large"]
)
def test_a_layer_takes_it_for_small_maps_with_many_channels(channels: int, side: int, takes: bool) -> None:
    x, weight = drawn(2, 3, side, side, seed=0).float(), drawn(channels, 3, 3, 3, seed=1).float()
    layer = Convolution3x3(3, channels)
    with torch.no_grad():
        layer.weight.copy_(weight)
    plain = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert (small_map.convolve_small(x, weight) is not None) == takes
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y.float(), plain)
    with torch.autocast("cpu", torch.float16):
        assert small_map.convolve_small(x, weight) is None


def test_the_gradient_of_the_weights_is_summed_in_float32() -> None:
    """A batch of 512 images has 8,192 pixels: a sum in bfloat16 would lose all digits but two."""
    x, weight = torch.ones(512, 2, 4, 4, requires_grad=True), torch.ones(320, 2, 3, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = small_map.convolve_small(x, weight)
    assert y is not None
    (gradient,) = torch.autograd.grad(y.float().sum(), weight)
    assert gradient.dtype == torch.float32
    assert gradient[0, 0, 1, 1] == 8192
