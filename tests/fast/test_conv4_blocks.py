"""Conv4's blocks by C code, against plain operations in double precision."""

import ctypes
import functools
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from metarep.encoders import Conv4
from metarep.fast import block_tail, c, conv4_curvature, first_block
from metarep.fast.block import plain_block, plain_tail

WIDTH = 32


@pytest.fixture(autouse=True, params=["of this processor", "of any processor"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """There is one, and it shares the work among threads even where that does not pay."""
    if c.library() is None:
        assert shutil.which("cc") is None, "there is a C compiler, and yet nothing was built"
        pytest.skip("no C compiler when the package was installed")
    if request.param == "of any processor":
        monkeypatch.setattr(c, "library", lambda: ctypes.CDLL(str(Path(c.__file__).with_name("compiled.so"))))
        monkeypatch.setattr(c, "_function", functools.cache(c._function.__wrapped__))
    monkeypatch.setattr(block_tail, "WORTH_A_THREAD", 1)
    monkeypatch.setattr(first_block, "WORTH_A_THREAD", 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(threads)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=Generator().manual_seed(seed))


def network(channels: int = 1) -> Conv4:
    """With scales of both signs, and shifts that are not zero."""
    made = Conv4(channels, width=WIDTH)
    with torch.no_grad():
        for i, parameter in enumerate(made.parameters()):
            parameter.copy_(drawn(*parameter.shape, seed=i) * 0.5 + (i % 3 == 1))
    return made


def images(channels: int, side: int, n: int = 5) -> Tensor:
    """Drawings: a blank ground, on which all maxima are ties."""
    x = drawn(n, channels, side, side, seed=7)
    return x * (x > 0.8)


def near(mine: Tensor, wanted: Tensor, share: float = 1e-4) -> None:
    assert mine.shape == wanted.shape
    assert (mine.double() - wanted.double()).norm() <= share * wanted.double().norm() + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 12), (2, 6)])
def test_conv4_is_its_layers(channels: int, side: int, training: bool) -> None:
    """Maps of 28, 14, 7 and 3, so odd sides too; sides of 6 end in a single place and go through the layers."""
    depth = 4 if side > 12 else 3 if side > 6 else 2
    made = nn.Sequential(*list(network(channels))[:depth]).train(training)
    reference = nn.Sequential(*list(network(channels))[:depth]).double().train(training)
    x = images(channels, side)
    for _ in range(2):
        mine = made(x.contiguous(memory_format=torch.channels_last))
        wanted = x.double()
        for layer in [layer for part in reference for layer in part]:
            wanted = layer(wanted)
        near(mine, wanted)
        above = drawn(*mine.shape)
        gradients = torch.autograd.grad(mine, list(made.parameters()), above)
        wanted_gradients = torch.autograd.grad(wanted, list(reference.parameters()), above.double())
        for one, two in zip(gradients, wanted_gradients, strict=True):
            near(one, two, 1e-3)
    for one, two in zip(made.buffers(), reference.buffers(), strict=True):
        near(one, two)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "given"), [(None, False), (2, False), (None, True)])
@pytest.mark.parametrize(("h", "w"), [(8, 8), (7, 4), (3, 3), (2, 5)])
def test_a_tail_is_its_formula(h: int, w: int, rows: int | None, given: bool, kind: torch.dtype) -> None:
    y = (drawn(5, WIDTH, h, w) * 2 + 1).to(kind).contiguous(memory_format=torch.channels_last)
    weights = [drawn(WIDTH, seed=1), drawn(WIDTH, seed=2)]
    statistics = (drawn(WIDTH, seed=3), drawn(WIDTH, seed=4).square() + 0.1) if given else None
    assert block_tail.compiles(y)
    inputs = [each.clone().requires_grad_() for each in (y, *weights)]
    doubles = [each.double().requires_grad_() for each in (y, *weights)]
    mine = block_tail.block_tail(*inputs, 1e-3, rows, statistics)
    wide = statistics and tuple(each.double() for each in statistics)
    wanted = plain_tail(*doubles, 1e-3, rows, wide)
    rounding = 1e-4 if kind == torch.float32 else 5e-3
    near(mine.z, wanted, rounding)
    assert (mine.z == wanted.to(kind)).float().mean() > (0.98 if kind == torch.bfloat16 else 0.4), "rounded to nearest"
    if statistics is None:
        near(mine.mean, doubles[0][:rows].mean((0, 2, 3)))
        near(mine.variance, doubles[0][:rows].var((0, 2, 3), correction=0))
    above = drawn(*mine.z.shape, seed=5).to(kind)
    gradients = torch.autograd.grad(mine.z, inputs, above)
    for one, two in zip(gradients, torch.autograd.grad(wanted, doubles, above.double()), strict=True):
        near(one, two, rounding)


@pytest.mark.parametrize(("rows", "given"), [(None, False), (2, False), (None, True)])
def test_a_first_block_is_its_formula(rows: int | None, given: bool) -> None:
    x, weights = images(3, 12), [drawn(WIDTH, 3, 3, 3), drawn(WIDTH, seed=1), drawn(WIDTH, seed=2)]
    statistics = (drawn(WIDTH, seed=3), drawn(WIDTH, seed=4).square() + 0.1) if given else None
    assert first_block.fits(x, weights[0])
    inputs, doubles = ([each.to(kind).requires_grad_() for each in weights] for kind in (torch.float, torch.double))
    mine = first_block.first_block(x, *inputs, 1e-3, rows, statistics)
    wide = statistics and tuple(each.double() for each in statistics)
    wanted = plain_block(x.double(), *doubles, 1e-3, rows, wide)
    near(mine.z, wanted)
    above = drawn(*mine.z.shape, seed=5)
    gradients = torch.autograd.grad(mine.z, inputs, above)
    for one, two in zip(gradients, torch.autograd.grad(wanted, doubles, above.double()), strict=True):
        near(one, two)


def twice(block: Callable[..., Tensor], inputs: list[Tensor]) -> Sequence[Tensor]:
    """Gradients of a sum of squared gradients."""
    inputs = [each.clone().requires_grad_() for each in inputs]
    first = torch.autograd.grad(block(*inputs).square().sum(), inputs, create_graph=True)
    return torch.autograd.grad(torch.stack([each.square().sum() for each in first]).sum(), inputs)


def test_blocks_can_be_differentiated_twice() -> None:
    y, x = drawn(4, WIDTH, 6, 6).contiguous(memory_format=torch.channels_last), images(1, 8)
    weights = [drawn(WIDTH, seed=1), drawn(WIDTH, seed=2)]
    of_tail = [
        twice(lambda *a: block_tail.block_tail(*a, 1e-5).z, [y, *weights]),
        twice(lambda *a: plain_tail(*a, 1e-5, None, None), [y, *weights]),
    ]
    filters = drawn(WIDTH, 1, 3, 3, seed=3)
    of_first = [
        twice(lambda *a: first_block.first_block(x, *a, 1e-5).z, [filters, *weights]),
        twice(lambda *a: plain_block(x, *a, 1e-5, None, None), [filters, *weights]),
    ]
    for found in (of_tail, of_first):
        for one, two in zip(*found, strict=True):
            near(one, two)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # of torch, in forward mode
def test_what_does_not_fit_goes_through_the_layers() -> None:
    filters = drawn(WIDTH, 1, 3, 3)
    assert not first_block.fits(images(1, 7), filters)
    assert not first_block.fits(images(5, 8), filters)
    assert not first_block.fits(images(1, 8).double(), filters)
    assert not first_block.fits(images(1, 8).requires_grad_(), filters)
    assert not first_block.fits(images(1, 8), drawn(6, 1, 3, 3))
    assert not block_tail.compiles(drawn(2, WIDTH, 6, 6))  # not channels last
    assert not block_tail.compiles(drawn(2, WIDTH, 1, 6).contiguous(memory_format=torch.channels_last))
    made, x = nn.Sequential(*list(network())[:2]).eval(), images(1, 8)
    near(torch.func.vmap(made)(x.unsqueeze(1)).squeeze(1), made(x))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        near(torch.autograd.forward_ad.unpack_dual(made(dual)).primal, made(x))


@pytest.mark.slow
@pytest.mark.parametrize("side", [28, 16])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_curvature_is_that_of_plain_operations(side: int, precision: torch.dtype) -> None:
    made, x, labels = network(), images(1, side, 6), torch.arange(6) % 3
    features = made(x).shape[1]
    weights = [each.detach() for each in made.parameters()] + [drawn(3, features, seed=3), drawn(3, seed=4)]
    v = [drawn(*each.shape, seed=50 + i) for i, each in enumerate(weights)]
    with torch.no_grad():
        loss, gradients, tape, seen = conv4_curvature.gradient(one(weights), x[None], labels[None], 1e-5, precision)
        assert [type(block).__name__ for block in tape.blocks] == ["FirstBlockCurvature"] + ["CompiledCurvature"] * 3
        product = conv4_curvature.hessian_vector_product(tape, one(v))
        doubles = one(each.double() for each in weights)
        other = conv4_curvature.gradient(doubles, x.double()[None], labels[None], 1e-5, torch.float64)
        wanted = conv4_curvature.hessian_vector_product(other[2], one(each.double() for each in v))
    near(loss, other[0])
    for found, want in zip(gradients, other[1], strict=True):
        near(found, want, 1e-3)
    for found, want in zip(product, wanted, strict=True):
        near(found, want, 2e-3 if precision == torch.float32 else 3e-2)
    for found, want in zip(seen, other[3], strict=True):
        near(torch.stack(found), torch.stack(want))


def one(tensors: Iterable[Tensor]) -> list[Tensor]:
    """With the axis of one task."""
    return [tensor.unsqueeze(0) for tensor in tensors]


def test_hooks_are_called() -> None:
    made, x = network().eval(), images(1, 28)
    want, called = made(x), []
    for layer in made[1]:
        layer.register_forward_hook(lambda layer, *_: called.append(type(layer)))
    near(made(x), want)
    assert called == [nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.ReLU]


def test_without_a_compiler_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def losses() -> Any:
        made = network().train()
        loss = functional.cross_entropy(made(images(1, 28)), torch.arange(5))
        return [loss, *torch.autograd.grad(loss, list(made.parameters()))]

    mine = losses()
    for module in (block_tail, first_block):
        monkeypatch.setattr(module, "library", lambda: None)
    for one, two in zip(mine, losses(), strict=True):
        near(one, two, 1e-3)
