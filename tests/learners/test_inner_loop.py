"""The inner loop: every path against a hand-written loop in float64, and what must never happen."""

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from inner_loops import (
    CHANGES,
    PLAIN,
    SIDE,
    WAYS,
    WHOLE,
    KnownGradientContract,
    PathContract,
    gradients,
    learner,
    same,
    solved,
    tasks_of,
)
from torch import Generator, Tensor, nn
from torch.nn import functional

from metarep.data.batches import BatchShape, TaskBatch, draw_batch
from metarep.encoders import Encoder, build_encoder
from metarep.encoders.normalisation import PlainNorm, replica
from metarep.errors import MetarepError
from metarep.learners import GradientDescent
from metarep.learners.inner_loop import InnerLoop, Task, meta_loss
from metarep.methods import MAML, Reptile
from metarep.methods.maml import step_weights
from metarep.methods.reptile import reptile_loss


class TestPaths(PathContract):
    @pytest.fixture(params=["plain", "exact", "mapped"])
    def path(self, request: pytest.FixtureRequest) -> str:
        return request.param


class TestKnownGradient(KnownGradientContract):
    @pytest.fixture
    def path(self) -> str:
        return "exact"


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    """Against finite differences along a random direction of everything that is learned."""
    made, tasks = learner(rates="layer", head="prototype"), tasks_of()
    inner = InnerLoop(2, made.adapted)
    parameters = list(made.parameters())
    g = Generator().manual_seed(1)
    direction = [torch.randn(p.shape, generator=g, dtype=p.dtype) for p in parameters]
    meta_loss(made.start, inner, tasks, WAYS).backward()
    slope = sum((p.grad * d).sum() for p, d in zip(parameters, direction, strict=True))
    ends, eps = [], 1e-7  # so small that hardly any maximum or kink is crossed
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(d, alpha=sign * eps)
        ends.append(meta_loss(made.start, inner, tasks, WAYS).detach())
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(d, alpha=-sign * eps)
    torch.testing.assert_close(slope, (ends[0] - ends[1]) / (2 * eps), rtol=1e-5, atol=1e-7)


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.getstate", tuple)  # type checkers draw from it, and the body would be taken to draw
    made, tasks = learner(dtype=torch.float32), tasks_of(n=5, dtype=torch.float32)
    inner, found = InnerLoop(2, made.adapted), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            found.append(gradients(meta_loss(made.start, inner, tasks, WAYS, "exact"), made))
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(1)
    same(*found, tolerance=0)


def test_first_order_keeps_no_graph_and_its_memory_does_not_grow_with_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What steps keep for the second order: nothing, for 2 and for 12 steps."""
    from metarep.learners.inner_loop import exact

    def alive(steps: int, order: int) -> int:
        counts: list[int] = []
        carry = exact._carry_back

        def watched(*arguments: Any) -> Any:
            step_gradients = arguments[2]
            assert not any(part.requires_grad for one in step_gradients for part in one.gradient)
            counts.append(sum(one.hessian_vector_product is not None for one in step_gradients))
            return carry(*arguments)

        monkeypatch.setattr(exact, "_carry_back", watched)
        made = learner(steps=steps)
        meta_loss(made.start, InnerLoop(steps, made.adapted, order), tasks_of(n=1), WAYS, "exact")
        monkeypatch.setattr(exact, "_carry_back", carry)
        return counts[0]

    assert alive(2, 1) == alive(12, 1) == 0
    assert alive(12, 2) > alive(2, 2) > 0


# What must never happen


@pytest.mark.parametrize("kind", list(WHOLE))
def test_a_query_never_sees_the_others(kind: str) -> None:
    made, tasks = learner(**WHOLE[kind]).eval(), tasks_of()
    whole = solved(made, tasks)
    torch.testing.assert_close(solved(made, tasks._replace(query=tasks.query.flip(1))).flip(1), whole)
    torch.testing.assert_close(solved(made, tasks._replace(query=tasks.query[:, :1])), whole[:, :1])
    crowd = torch.cat([tasks.query[:, :1], 50 * tasks.query[:, 1:]], 1)
    torch.testing.assert_close(solved(made, tasks._replace(query=crowd))[:, :1], whole[:, :1])
    assert made.protocol == "inductive"


def test_transductive_queries_do_see_each_other_and_it_says_so() -> None:
    made, tasks = learner(normalisation="transductive").eval(), tasks_of()
    assert made.protocol == "transductive"
    alone = solved(made, tasks._replace(query=tasks.query[:, :2]))
    assert not torch.allclose(alone, solved(made, tasks)[:, :2], atol=1e-3)


@pytest.mark.parametrize("kind", list(WHOLE))
def test_tasks_are_solved_one_by_one_as_in_a_batch_and_leave_nothing_behind(kind: str) -> None:
    made, tasks = learner(**WHOLE[kind]).eval(), tasks_of()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    whole = solved(made, tasks)
    for t in range(3):
        torch.testing.assert_close(solved(made, Task(*(part[t : t + 1] for part in tasks))), whole[t : t + 1])
    state = made.adapt(tasks.support, tasks.support_y, WAYS)
    assert not any(tensor.requires_grad for tensor in state.values())
    assert {len(tensor) for tensor in state.values()} == {3}
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())


def test_what_is_trained_is_what_is_deployed() -> None:
    """The loss that training descends is the cross-entropy of the logits that evaluation gets."""
    made, tasks = learner(), tasks_of()
    trained = made.task_loss(*tasks, WAYS)
    deployed = functional.cross_entropy(solved(made, tasks).mT, tasks.query_y)
    torch.testing.assert_close(trained.detach(), deployed)


def test_the_last_rate_repeats() -> None:
    rates = learner(rates="layer").rates.table(5)
    assert [row[0].item() for row in rates[1:]] == [rates[1][0].item()] * 4
    assert rates[0][0].item() != rates[1][0].item()


def test_multi_step_weights_sum_to_one_and_end_on_the_last() -> None:
    for progress in (0.0, 0.3, 0.99):
        weights = step_weights(5, progress)
        assert weights is not None
        assert sum(weights) == pytest.approx(1)
        assert weights[-1] >= max(weights) - 1e-9
    assert step_weights(5, 0.0) == pytest.approx([0.2] * 5)


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


PLACES = (SIDE - 1) // 2
NORMS: dict[str, Callable[[], nn.Module]] = {
    "batch": lambda: nn.BatchNorm2d(4),
    "group": lambda: nn.GroupNorm(2, 4),
    "layer": lambda: nn.LayerNorm([4, PLACES, PLACES]),
    "layer of rows": lambda: nn.LayerNorm([PLACES], bias=False),
    "instance": lambda: nn.InstanceNorm2d(4, affine=True),
    "plain instance": lambda: nn.InstanceNorm2d(4),
}


@pytest.mark.parametrize("norm", [name for name in NORMS if "layer" in name or "instance" in name])
def test_norms_in_plain_arithmetic_are_torchs(norm: str) -> None:
    x, layer = torch.randn(3, 4, PLACES, PLACES, dtype=torch.float64), NORMS[norm]().double()
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    twin = replica(layer, differentiable=True)
    assert isinstance(twin, PlainNorm)
    torch.testing.assert_close(twin(x), layer(x))


@pytest.mark.parametrize("path", ["plain", "exact", "mapped"])
@pytest.mark.parametrize("norm", NORMS)
def test_any_module_will_do(norm: str, path: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = Encoder(Own(NORMS[norm]()), PLAIN).double()
        made = GradientDescent(encoder, ways=WAYS, head="rows", scope="all", steps=2, inner_lr=0.1)
    made.double().train()
    inner, tasks = InnerLoop(2, made.adapted), tasks_of()
    found = gradients(meta_loss(made.start, inner, tasks, WAYS, path), made)
    same(found, gradients(meta_loss(made.start, inner, tasks, WAYS, "plain"), made))
    assert all(gradient.any() for gradient in found.values())


@pytest.mark.parametrize("width", [4, 32])
@pytest.mark.parametrize("change", CHANGES)
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
        (lambda: learner(steps=-1), "steps must be at least 0, not -1"),
        (lambda: learner(inner_lr=0.0), "inner learning rate is 0.0; it must be above 0 and finite"),
        (lambda: learner(adaptation="adam", rates="layer"), "adaptation=adam does not work with rates=layer .* goes with rates=fixed"),
        (lambda: learner(scope="head", inner_lr=1e300).eval().adapt(*rows_of_features(), WAYS), "NaN or infinite after"),
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
def test_bad_input_is_named(wrong: Callable[[], Any], message: str) -> None:
    with pytest.raises(MetarepError, match=message):
        wrong()


def test_one_shared_row_gives_the_body_nothing_at_the_first_step() -> None:
    """Why that is refused: after one step from equal rows the change of the body's weights is exactly zero."""
    made, tasks = learner(head="shared", steps=2), tasks_of(n=1)
    made.test_steps = 1
    state = made.eval().adapt(tasks.support, tasks.support_y, WAYS)
    for i, parameter in enumerate(made.encoder.body.parameters()):
        torch.testing.assert_close(state[f"weight.{i}"][0], parameter.data, rtol=0, atol=1e-12)


# Reptile


@pytest.mark.parametrize("kind", ["rows", "prototype"])
def test_reptile_is_its_textbook_update(kind: Literal["rows", "prototype"]) -> None:
    """Start plus rate times (mean end - start), the ends by Adam as the paper's code has it, one task after another."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = build_encoder("conv4", PLAIN, width=4)
        made = Reptile(encoder, ways=WAYS, head=kind, inner_steps=3, minibatch=0).double().train()
    tasks, copies, moments = tasks_of(), [], []
    learner_ = made.learner
    for support, y in zip(
        torch.cat([tasks.support, tasks.query], 1), torch.cat([tasks.support_y, tasks.query_y], 1), strict=True
    ):
        body = build_encoder("conv4", PLAIN, width=4).double().train()
        body.load_state_dict(learner_.encoder.state_dict())
        head = nn.Linear(4, WAYS).double()
        if kind == "rows":
            head.load_state_dict({"weight": learner_.head.weight, "bias": learner_.head.bias})
        else:
            means = torch.stack([body(support)[y == way].mean(0) for way in range(WAYS)]).detach()
            head.load_state_dict({"weight": 2 * means, "bias": -means.square().sum(1)})
        own = [*body.body.parameters(), *head.parameters()]
        second = [torch.zeros_like(p) for p in own]
        for t in (1, 2, 3):
            slopes = torch.autograd.grad(functional.cross_entropy(head(body(support)), y), own)
            second = [0.999 * s + 0.001 * g**2 for s, g in zip(second, slopes, strict=True)]
            with torch.no_grad():
                for p, s, g in zip(own, second, slopes, strict=True):
                    p -= 1e-3 * (1 - 0.999**t) ** 0.5 * g / (s.sqrt() + 1e-8)
        copies.append([p.detach() for p in own])
        moments.append(second)
    start = [*learner_.encoder.body.parameters(), *learner_.head.parameters()]
    ends = [torch.stack(each).mean(0) for each in zip(*copies, strict=True)]
    want = [
        p.detach() + 0.7 * (end - p.detach()) for p, end in zip(start, ends, strict=False)
    ]  # a head may be the task's
    # Through the method: the same tasks as a batch of its own.
    images = torch.cat([tasks.support, tasks.query], 1)
    from metarep.data.batches import TaskBatch
    from metarep.data.tasks import TaskIndex

    place = torch.arange(images.shape[0] * images.shape[1]).view(images.shape[:2])
    index = TaskIndex(place[:, :6], place[:, 6:], tasks.support_y, tasks.query_y, torch.zeros(3, WAYS).long(), WAYS)
    step = made.step(TaskBatch(images.flatten(0, 1), place.flatten(), index), progress=0.0, generator=Generator())
    optimiser, seen_by = made.optimizer(0.7, 0.0), start[0].detach().clone()
    step.loss.backward()
    optimiser.step()
    for got, wanted in zip(start, want, strict=True):
        torch.testing.assert_close(got.detach(), wanted, rtol=1e-9, atol=1e-12)
    assert not any(learner_.get_buffer(f"second_{i}").any() for i in range(14))
    first = functional.conv2d(images.flatten(0, 1), seen_by, padding=1).unflatten(0, images.shape[:2])
    made.after_step(step.carry, 0.0)
    running = learner_.encoder.body[0][1].running_mean
    torch.testing.assert_close(running, 0.1 * first.mean((0, 1, 3, 4)), msg="running statistics are of the start")
    assert learner_.get_buffer("adam_steps") == 3
    for i, mean in enumerate(torch.stack(part).mean(0) for part in zip(*moments, strict=True)):
        kept = learner_.get_buffer(f"second_{i}")
        torch.testing.assert_close(kept, mean if kept.shape == mean.shape else mean.mean(0, keepdim=True))
        assert kept.any()


def test_the_gradient_of_reptiles_loss_is_its_step() -> None:
    start = [torch.tensor([1.0, 2.0], requires_grad=True)]
    reptile_loss(start, [[torch.tensor([3.0, 3.0])], [torch.tensor([1.0, 5.0])]]).backward()
    assert start[0].grad.tolist() == [-1.0, -2.0]


def test_maml_refuses_what_cannot_be() -> None:
    encoder = build_encoder("conv4", PLAIN, width=4)
    with pytest.raises(MetarepError, match="multi_step is a share of training"):
        MAML(encoder, multi_step=2.0)


def test_maml_trains_under_running_statistics_only_where_there_are_some(drawings: Any, small_encoder: Any) -> None:
    encoder, shape = small_encoder(), BatchShape(ways=WAYS, shots=2, queries=3)
    batch = draw_batch(TaskBatch, drawings[1].bank, drawings[1].labels, shape, None, Generator().manual_seed(0))
    made = MAML(encoder, ways=WAYS, normalisation="running")
    with pytest.raises(MetarepError, match=r"start from a trained one with init=RUN, or take normalisation='support'"):
        made.step(batch, progress=0.0, generator=Generator())
    encoder.body[0][1].running_mean += 0.1
    assert made.step(batch, progress=0.0, generator=Generator()).loss.isfinite()


def test_a_measurement_under_other_statistics_leaves_the_learner_as_it_was(drawings: Any, small_encoder: Any) -> None:
    from metarep.experiments.measure import Setting, measure_all

    made = GradientDescent(small_encoder(), ways=3, head="rows", scope="all", steps=1)
    cells = [Setting(range(3, 4), range(1, 2), 2, 3, normalisation=n) for n in ("transductive", None, "running")]
    reports = [report for _, report in measure_all(made, drawings[1], cells, references=False)]
    assert [(report.normalisation, report.protocol) for report in reports] == [
        ("transductive", "transductive"),
        ("support", "inductive"),
        ("running", "inductive"),
    ]
    assert reports[1].learner == "descent, 1 step"
