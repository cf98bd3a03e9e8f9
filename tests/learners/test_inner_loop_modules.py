"""Tests of the inner loop with a user's own modules and with invalid settings."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from inner_loops import (
    CHANGES,
    PLAIN,
    SIDE,
    WAYS,
    gradients,
    learner,
    same,
    solved,
    tasks_of,
)
from thinning import few
from torch import Generator, Tensor, nn

from metarep.encoders import Encoder
from metarep.encoders.normalisation import PlainNorm, replica
from metarep.errors import MetarepError
from metarep.learners import GradientDescent
from metarep.learners.inner_loop import InnerLoop, meta_loss


class Own(nn.Module):
    """A user's module: residual, with a norm layer in a list, and a parameter used twice."""

    def __init__(self, norm: nn.Module | None = None, buffer: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(1, 4, 3, 2), norm or nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, 1, 1)])
        self.scale = nn.Parameter(torch.ones(1))
        if buffer:
            self.register_buffer("centre", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "centre"):
            self.centre.lerp_(x.detach().mean(), 0.1)
        x = self.layers[1](self.layers[0](x)).relu() * self.scale
        return (x + self.layers[2](x) * self.scale).mean((2, 3))


POOLED_SIDE = (SIDE - 1) // 2
NORMS: dict[str, Callable[[], nn.Module]] = {
    "batch": lambda: nn.BatchNorm2d(4),
    "group": lambda: nn.GroupNorm(2, 4),
    "layer": lambda: nn.LayerNorm([4, POOLED_SIDE, POOLED_SIDE]),
    "layer of rows": lambda: nn.LayerNorm([POOLED_SIDE], bias=False),
    "instance": lambda: nn.InstanceNorm2d(4, affine=True),
    "plain instance": lambda: nn.InstanceNorm2d(4),
}


@pytest.mark.parametrize("norm", [name for name in NORMS if "layer" in name or "instance" in name])
def test_norms_in_plain_arithmetic_are_torchs(norm: str) -> None:
    x, layer = torch.randn(3, 4, POOLED_SIDE, POOLED_SIDE, dtype=torch.float64), NORMS[norm]().double()
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    copy = replica(layer, differentiable=True)
    assert isinstance(copy, PlainNorm)
    torch.testing.assert_close(copy(x), layer(x))


@pytest.mark.parametrize("path", ["plain", "exact", "mapped"])
@pytest.mark.parametrize("norm", few(NORMS, 3))
def test_any_module_can_be_adapted(norm: str, path: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = Encoder(Own(NORMS[norm]()), PLAIN).double()
        made = GradientDescent(encoder, ways=WAYS, head="rows", scope="all", steps=2, inner_lr=0.1)
    made.double().train()
    inner, tasks = InnerLoop(2, made.adapted), tasks_of()
    of_path = gradients(meta_loss(made.start, inner, tasks, WAYS, path), made)
    same(of_path, gradients(meta_loss(made.start, inner, tasks, WAYS, "plain"), made))
    assert all(gradient.any() for gradient in of_path.values())


@pytest.mark.slow
@pytest.mark.parametrize("width", [4, 32])
@pytest.mark.parametrize("change", few(CHANGES, 2))
def test_a_changed_conv4_is_computed_as_it_is(change: str, width: int) -> None:
    """Of 32 channels, blocks could go through C code in float32, and with them the support's curvature."""
    kind = torch.float32 if width == 32 else torch.float64
    made, tasks = learner(width=width, dtype=kind), tasks_of(n=2, dtype=kind)
    inner = InnerLoop(2, made.adapted)
    unchanged = meta_loss(made.start, inner, tasks, WAYS).item()
    CHANGES[change](made.encoder.body[2])
    loss = meta_loss(made.start, inner, tasks, WAYS)
    assert abs(loss.item() - unchanged) > 1e-4
    if width == 32:
        torch.testing.assert_close(loss, meta_loss(made.start, inner, tasks, WAYS, "plain"), rtol=5e-3, atol=1e-3)
        return
    inner = InnerLoop(2, made.adapted)
    want = gradients(meta_loss(made.start, inner, tasks, WAYS, "plain"), made)
    same(gradients(meta_loss(made.start, inner, tasks, WAYS), made), want)


def rows_of_features() -> tuple[Tensor, Tensor]:
    g = Generator().manual_seed(0)
    return 1e10 * torch.randn(1, 6, 4, generator=g, dtype=torch.float64), torch.tensor([[0, 1, 2, 0, 1, 2]])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: learner(steps=-1), "steps must be from 0 to 10,000, not -1"),
        (lambda: learner(inner_lr=0.0), "inner learning rate is 0.0; it must be above 0 and finite"),
        (lambda: learner(adaptation="adam", rates="layer"), "adaptation=adam does not work with rates=layer"),
        (
            lambda: learner(scope="head", inner_lr=1e300).eval().adapt(*rows_of_features(), WAYS),
            "NaN or inf",
        ),
        (lambda: learner(head="shared").use(test_steps=1), "head=shared: .* the gradient of the features is zero"),
        (lambda: learner(head="shared", steps=1), "head=shared: .* the gradient of the features is zero"),
        (
            lambda: solved(learner(inner_lr=1e200, steps=4), tasks_of()),
            r"the inner loss is (nan|inf) before inner step \d",
        ),
        (lambda: learner().task_loss(*tasks_of(), 4), "task 0 has no support image of class 3"),
        (
            lambda: solved(learner().eval(), tasks_of(n=1)._replace(support_y=torch.tensor([[0, 1, 0, 1, 0, 1]]))),
            "class 2",
        ),
        (
            lambda: GradientDescent(Encoder(Own(buffer=True), PLAIN), ways=3, head="rows", scope="all").task_loss(
                *tasks_of(dtype=torch.float32), 3
            ),
            "buffer 'centre'",
        ),
        (lambda: learner().head.start(5, None, torch.zeros(1, 5).long()), "head of 3 rows, .* a task of 5 ways"),
    ],
)
def test_invalid_input_is_refused(wrong: Callable[[], Any], message: str) -> None:
    with pytest.raises(MetarepError, match=message):
        wrong()


def test_one_shared_row_gives_the_body_nothing_at_the_first_step() -> None:
    """Why that is refused: after one step from equal rows the change of the body's weights is exactly zero."""
    made, tasks = learner(head="shared", steps=2), tasks_of(n=1)
    made.test_steps = 1
    state = made.eval().adapt(tasks.support, tasks.support_y, WAYS)
    for i, parameter in enumerate(made.encoder.body.parameters()):
        torch.testing.assert_close(state[f"weight.{i}"][0], parameter.data, rtol=0, atol=1e-12)
