"""The first block in one go against its four layers."""

from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from metarep.encoders import Conv4
from metarep.encoders.first_block import first_block, fits, plain_block


def block(channels: int, width: int = 6) -> nn.Sequential:
    """A block whose scales have both signs, in double precision."""
    made = Conv4(channels, width=width)[0]
    assert isinstance(made, nn.Sequential)
    with torch.no_grad():
        for i, parameter in enumerate(made.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=Generator().manual_seed(i)))
    return made.double()


def images(channels: int, side: int) -> Tensor:
    """With a blank ground, so that many maxima are ties."""
    x = torch.rand(5, channels, side, side + 2, generator=Generator().manual_seed(7), dtype=torch.float64)
    return x * (x > 0.6)


def layers(made: nn.Sequential, x: Tensor) -> Tensor:
    for layer in made:
        x = layer(x)
    return x


def gradients(z: Tensor, made: nn.Module, *, again: bool = False) -> list[Tensor]:
    above = torch.rand(z.shape, generator=Generator().manual_seed(3), dtype=z.dtype)
    found = torch.autograd.grad(z, list(made.parameters()), above, create_graph=again)
    if not again:
        return list(found)
    return list(torch.autograd.grad(sum(slope.square().sum() for slope in found), list(made.parameters())))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 6)])
def test_it_is_its_four_layers_and_moves_their_statistics(channels: int, side: int, training: bool) -> None:
    made, other, x = block(channels).train(training), block(channels).train(training), images(channels, side)
    assert fits(x)
    for _ in range(2):
        one, two = made(x), layers(other, x)
        torch.testing.assert_close(one, two)
        for mine, theirs in zip(gradients(one, made), gradients(two, other), strict=True):
            torch.testing.assert_close(mine, theirs)
    for (name, mine), theirs in zip(made.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, msg=lambda m, n=name: f"{n}: {m}")


def test_it_can_be_differentiated_twice() -> None:
    made, x = block(1).train(), images(1, 8)
    wanted = gradients(layers(made, x), made, again=True)
    for mine, theirs in zip(gradients(made(x), made, again=True), wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("settings", [(2, None), (None, (0.3, 1.7))])
def test_statistics_of_some_rows_or_given_ones(settings: Any) -> None:
    rows, given = settings
    given = given and tuple(torch.full((6,), value, dtype=torch.float64) for value in given)
    made, x = block(3), images(3, 6)
    one, two = (each(x, *made.parameters(), 1e-5, rows, given) for each in (first_block, plain_block))
    torch.testing.assert_close(one.z, two)
    for mine, theirs in zip(gradients(one.z, made), gradients(two, made), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_what_it_does_not_fit_goes_through_the_layers() -> None:
    assert not fits(images(1, 7))
    assert not fits(images(5, 8))
    assert not fits(images(1, 8).requires_grad_())
    made, x = block(1).eval(), images(1, 8)
    torch.testing.assert_close(torch.func.vmap(made)(x.unsqueeze(1)).squeeze(1), made(x))
