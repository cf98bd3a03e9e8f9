"""The inner loop: every path against a hand-written loop in float64, and what must never happen."""

import itertools
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from metarep.batches import BatchShape, TaskBatch, draw_batch
from metarep.class_means import class_means
from metarep.encoders import Encoder, Preprocess, build_encoder
from metarep.errors import MetarepError
from metarep.inner_loop import InnerLoop, Task, adaptation, meta_loss, stacked
from metarep.learners import GradientDescent
from metarep.methods import MAML, Reptile
from metarep.methods.maml import step_weights
from metarep.methods.reptile import reptile_loss
from metarep.normalisation import PlainNorm, replica

WAYS, SIDE = 3, 16
PLAIN = Preprocess((SIDE, SIDE), 1, (0.0,), (1.0,))


def learner(seed: int = 0, *, width: int = 4, dtype: torch.dtype = torch.float64, **settings: Any) -> GradientDescent:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build_encoder("conv4", PLAIN, width=width)
        settings = {"head": "rows", "scope": "all", "steps": 2, "inner_lr": 0.3} | settings
        made = GradientDescent(encoder, ways=WAYS, **settings).to(dtype)
        for parameter in made.rates.parameters():  # rates that differ, so that a mix-up shows
            nn.init.normal_(parameter, -1.5, 0.2)
        for layer in made.encoder.body.modules():  # scales of both signs, shifts that are not zero
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias, 0.0, 0.2)
                layer.weight.data[1] *= -1
                if settings.get("normalisation") == "running":
                    layer.running_mean.normal_(0.0, 0.2)
                    layer.running_var.uniform_(0.5, 1.5)
    return made.train()


def tasks_of(seed: int = 0, n: int = 3, shots: int = 2, queries: int = 3, dtype: torch.dtype = torch.float64) -> Task:
    g = Generator().manual_seed(seed)
    pattern = torch.rand(n, WAYS, 1, SIDE, SIDE, generator=g, dtype=dtype)

    def some(each: int) -> tuple[Tensor, Tensor]:
        y = torch.stack([torch.arange(WAYS).repeat(each)[torch.randperm(WAYS * each, generator=g)] for _ in range(n)])
        noise = torch.rand(n, WAYS * each, 1, SIDE, SIDE, generator=g, dtype=dtype)
        return torch.stack([pattern[t, y[t]] for t in range(n)]) + 0.5 * noise, y

    return Task(*some(shots), *some(queries))


def reference(made: GradientDescent, tasks: Task, order: int, weights: tuple[float, ...] | None) -> Tensor:
    """The same loss, written out by hand: layers, norms, heads, steps."""
    body = [(block[0].weight, block[1].weight, block[1].bias) for block in list(made.encoder.body)[:4]]
    flat = [tensor for block in body for tensor in block]
    norms = {i for i in range(12) if i % 3}
    kept = [(block[1].running_mean, block[1].running_var) for block in list(made.encoder.body)[:4]]

    def features(weights: list[Tensor], x: Tensor, first: int | None) -> Tensor:
        for b in range(4):
            x = functional.conv2d(x, weights[3 * b], padding=1)
            some = x[:first]
            mean = some.mean((0, 2, 3), keepdim=True)
            variance = (some - mean).square().mean((0, 2, 3), keepdim=True)
            if made.normalisation == "running":
                mean, variance = (statistic.view(1, -1, 1, 1) for statistic in kept[b])
            deviation = (variance + 1e-5).sqrt()
            x = (x - mean) / deviation * weights[3 * b + 1].view(1, -1, 1, 1) + weights[3 * b + 2].view(1, -1, 1, 1)
            x = functional.max_pool2d(x.relu(), 2)
        return x.flatten(1)

    losses = []
    for xs, ys, xq, yq in zip(*tasks, strict=True):
        if made.head.kind == "prototype":
            means = class_means(features(flat, xs, None).unsqueeze(0), ys.unsqueeze(0), WAYS)[0]
            head = [2 * means, -means.square().sum(-1)]
        else:
            head = [made.head.weight.expand(WAYS, -1), made.head.bias.expand(WAYS)]
        # Copies, so that the inner slope in the body does not go through a head that was made from it.
        now, total = [tensor.clone() for tensor in (*flat, *head)], torch.zeros((), dtype=torch.float64)
        for step in range(made.steps):
            loss = functional.cross_entropy(features(now[:-2], xs, None) @ now[-2].T + now[-1], ys)
            slopes = torch.autograd.grad(loss, now, create_graph=True)
            rates = made.rates.table(made.steps)[step]
            new, place = list(now), 0
            for i in range(14):
                if made.scope == "all-but-norms" and i in norms:
                    continue
                new[i] = now[i] - rates[place] * (slopes[i] if order == 2 else slopes[i].detach())
                place += 1
            now = new
            if weights is not None or step == made.steps - 1:
                if made.normalisation == "transductive":
                    rows = features(now[:-2], xq, None)
                else:
                    rows = features(now[:-2], torch.cat([xs, xq]), len(xs))[len(xs) :]
                here = functional.cross_entropy(rows @ now[-2].T + now[-1], yq)
                total = total + (weights[step] if weights else 1) * here
        losses.append(total)
    return torch.stack(losses).mean()


def gradients(loss: Tensor, made: GradientDescent) -> dict[str, Tensor]:
    made.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None}


def same(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 1e-9) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(
            one[name], other[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


CASES: list[tuple[dict[str, Any], int, tuple[float, ...] | None]] = [
    ({}, 2, None),
    ({}, 1, None),
    ({"steps": 3}, 2, (0.2, 0.3, 0.5)),
    ({"steps": 3}, 1, (0.2, 0.3, 0.5)),
    ({"normalisation": "transductive"}, 2, None),
    ({"normalisation": "running", "head": "prototype"}, 2, None),
    ({"rates": "parameter"}, 2, None),
    ({"rates": "layer"}, 2, None),
    ({"rates": "layer", "scope": "all-but-norms"}, 2, (0.4, 0.6)),
    ({"head": "prototype"}, 2, None),
    ({"head": "prototype", "rates": "layer"}, 1, None),
    ({"head": "shared"}, 2, None),
]


@pytest.mark.parametrize("path", ["plain", "exact", "stacked", "mapped"])
@pytest.mark.parametrize("case", CASES, ids=[f"{c[0]} order {c[1]} {c[2] or ''}" for c in CASES])
def test_every_path_is_the_hand_written_loop(case: tuple[dict[str, Any], int, Any], path: str) -> None:
    settings, order, weights = case
    made, tasks = learner(**settings), tasks_of()
    want = reference(made, tasks, order, weights)
    wanted = gradients(want, made)
    got = meta_loss(made.start, InnerLoop(made.steps, made.adapted, order, weights), tasks, WAYS, path)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    same(gradients(got, made), wanted)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("case", CASES, ids=[f"{c[0]} order {c[1]} {c[2] or ''}" for c in CASES])
def test_a_gpu_gives_the_same_gradient_and_again_when_it_is_replayed(
    case: tuple[dict[str, Any], int, Any], n: int
) -> None:
    """The first time it is computed, the second time recorded, the third time replayed."""
    settings, order, weights = case
    made = learner(**settings)
    there = learner(**settings).cuda()
    inner = InnerLoop(made.steps, made.adapted, order, weights)
    for seed in range(3):
        with torch.no_grad():
            for name, value in made.named_parameters():
                there.get_parameter(name).copy_(value.add_(0.01 * seed))
        tasks = tasks_of(seed, n=n)
        want = meta_loss(made.start, inner, tasks, WAYS, "plain")
        got = meta_loss(there.start, inner, Task(*(part.cuda() for part in tasks)), WAYS)
        torch.testing.assert_close(got.cpu(), want, rtol=1e-9, atol=1e-9)
        found = {name: gradient.cpu() for name, gradient in gradients(got, there).items()}
        same(found, gradients(want, made))
        for statistic, other in zip(made.buffers(), there.buffers(), strict=True):
            torch.testing.assert_close(statistic, other.cpu())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("head", ["rows", "prototype"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gpu_gives_nearly_the_same_gradient_in_lower_precision(n: int, head: str, precision: str) -> None:
    made, there = (learner(width=64, dtype=torch.float32, head=head) for _ in range(2))
    there, tasks = there.cuda(), tasks_of(n=n, queries=10, dtype=torch.float32)
    there.encoder.precision = precision
    exact_loss = meta_loss(made.start, InnerLoop(2, made.adapted), tasks, WAYS, "exact")
    exact = torch.cat([g.flatten() for g in gradients(exact_loss, made).values()])
    for call in range(3):
        loss = meta_loss(there.start, InnerLoop(2, made.adapted), Task(*(part.cuda() for part in tasks)), WAYS)
        rounded = torch.cat([g.flatten().cpu() for g in gradients(loss, there).values()])
        off, cosine = loss.item() / exact_loss.item() - 1, functional.cosine_similarity(exact, rounded, dim=0).item()
        assert abs(off) < 0.01, (call, off, cosine)
        assert cosine > 0.999, (call, off, cosine)


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


@pytest.mark.parametrize("path", ["plain", "exact", "stacked", "mapped"])
def test_a_batch_is_the_mean_of_its_tasks_and_of_its_chunks(path: str) -> None:
    made, tasks = learner(), tasks_of(n=4)
    inner = InnerLoop(2, made.adapted)

    def of(rows: slice) -> dict[str, Tensor]:
        return gradients(meta_loss(made.start, inner, Task(*(part[rows] for part in tasks)), WAYS, path), made)

    whole = of(slice(None))
    for cuts in ([0, 1, 2, 3, 4], [0, 2, 4]):
        parts = [of(slice(a, b)) for a, b in itertools.pairwise(cuts)]
        same({name: sum(part[name] for part in parts) / len(parts) for name in whole}, whole)


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


@pytest.mark.parametrize("path", ["plain", "exact", "stacked", "mapped"])
def test_without_inner_steps_it_is_the_plain_query_loss(path: str) -> None:
    made, tasks = learner(steps=0), tasks_of(n=1)
    got = gradients(meta_loss(made.start, InnerLoop(0, made.adapted), tasks, WAYS, path), made)
    body = made.encoder.body
    rows, first = torch.cat([tasks.support[0], tasks.query[0]]), tasks.support.shape[1]
    for block in list(body)[:4]:
        rows = block[0](rows)
        mean, variance = rows[:first].mean((0, 2, 3)), rows[:first].var((0, 2, 3), correction=0)
        rows = (rows - mean.view(1, -1, 1, 1)) / (variance.view(1, -1, 1, 1) + 1e-5).sqrt()
        rows = block[3](block[2](rows * block[1].weight.view(1, -1, 1, 1) + block[1].bias.view(1, -1, 1, 1)))
    logits = rows.flatten(1)[first:] @ made.head.weight.T + made.head.bias
    same(got, gradients(functional.cross_entropy(logits, tasks.query_y[0]), made))


def test_first_order_keeps_no_graph_and_its_memory_does_not_grow_with_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What steps keep for the second order: nothing, for 2 and for 12 steps."""
    from metarep.inner_loop import exact

    def alive(steps: int, order: int) -> int:
        counts: list[int] = []
        carry = exact._carry_back

        def watched(*arguments: Any) -> Any:
            trail = arguments[1]
            assert not any(slope.requires_grad for one in trail for slope in one.gradient)
            counts.append(sum(one.bend is not None for one in trail))
            return carry(*arguments)

        monkeypatch.setattr(exact, "_carry_back", watched)
        made = learner(steps=steps)
        meta_loss(made.start, InnerLoop(steps, made.adapted, order), tasks_of(n=1), WAYS, "exact")
        monkeypatch.setattr(exact, "_carry_back", carry)
        return counts[0]

    assert alive(2, 1) == alive(12, 1) == 0
    assert alive(12, 2) > alive(2, 2) > 0


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("path", ["exact", "stacked"])
@pytest.mark.parametrize(("head", "least"), [("rows", 0.999), ("prototype", 0.99999)])
def test_bfloat16_gives_nearly_the_same_gradient(head: str, least: float, path: str, order: int) -> None:
    """Large logits feel that precision, so with heads that start from prototypes the queries are in float32."""
    made = learner(width=64, dtype=torch.float32, head=head)
    tasks = tasks_of(n=2, queries=30, dtype=torch.float32)
    inner, found = InnerLoop(3 if order == 1 else 1, made.adapted, order), []
    for precision in ("float32", "bfloat16"):
        made.encoder.precision = precision
        loss = meta_loss(made.start, inner, tasks, WAYS, path)
        found.append((loss.item(), torch.cat([g.flatten() for g in gradients(loss, made).values()])))
    (loss, exact), (near, rounded) = found
    assert abs(near / loss - 1) < 0.01
    assert functional.cosine_similarity(exact, rounded, dim=0) > least


# What must never happen


def solved(made: GradientDescent, tasks: Task) -> Tensor:
    with torch.no_grad():
        return made.logits(made.adapt(tasks.support, tasks.support_y, WAYS), tasks.query)


WHOLE: dict[str, dict[str, Any]] = {
    "maml": {},
    "proto-maml": {"head": "prototype"},
    "adam": {"adaptation": "adam", "minibatch": 4, "inner_lr": 0.01},
    "proto-adam": {"adaptation": "adam", "head": "prototype", "minibatch": 4, "inner_lr": 0.01},
    "running": {"normalisation": "running"},
}


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


@pytest.mark.parametrize("kind", list(WHOLE))
def test_tasks_are_solved_one_by_one_as_all_at_once_on_an_accelerator(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, tasks = learner(**WHOLE[kind]).eval(), tasks_of()
    alone = made.adapt(tasks.support, tasks.support_y, WAYS)
    logits = made.logits(alone, tasks.query)
    monkeypatch.setattr(adaptation, "stacked", lambda body, x: True)
    monkeypatch.setattr(stacked, "PORTION", 1)
    at_once = made.adapt(tasks.support, tasks.support_y, WAYS)
    torch.testing.assert_close(at_once, alone)
    torch.testing.assert_close(made.logits(at_once, tasks.query), logits)


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


@pytest.mark.parametrize("path", ["plain", "exact", "stacked", "mapped"])
def test_training_moves_running_statistics_to_those_of_the_support(path: str) -> None:
    made, tasks = learner(), tasks_of()
    first = made.encoder.body[0]
    meta_loss(made.start, InnerLoop(made.steps, made.adapted), tasks, WAYS, path)
    rows = torch.stack([first[0](x).mean((0, 2, 3)) for x in tasks.support]).mean(0)
    torch.testing.assert_close(first[1].running_mean, 0.1 * rows)


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


CHANGES: dict[str, Callable[[nn.Module], Any]] = {
    "another layer": lambda block: block.__setitem__(3, nn.LeakyReLU(0.3)),
    "another epsilon": lambda block: setattr(block[1], "eps", 0.5),
    "a hook on a layer": lambda block: block[1].register_forward_hook(lambda layer, given, found: found.sin()),
    "a hook on a block": lambda block: block.register_forward_pre_hook(lambda layer, given: (given[0].sin(),)),
    "another forward": lambda block: setattr(block[3], "forward", torch.sin),
    "a forward around the old one": lambda block: setattr(
        block[0], "forward", lambda x, old=block[0].forward: (old(x) + block[1].bias.view(-1, 1, 1)).sin()
    ),
}


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
    with pytest.raises(MetarepError, match="unchanged Conv4"):
        meta_loss(made.start, inner, tasks, WAYS, "stacked")


@pytest.mark.parametrize("path", ["exact", "stacked"])
def test_an_image_that_is_no_number_is_noticed(path: str) -> None:
    made, tasks = learner(width=32, dtype=torch.float32), tasks_of(dtype=torch.float32)
    tasks.support[1, 0] = torch.nan
    with pytest.raises(MetarepError, match="the inner loss is nan before inner step 1"):
        meta_loss(made.start, InnerLoop(1, made.adapted), tasks, WAYS, path)
    with pytest.raises(MetarepError, match="the inner loss is nan before inner step 1"):
        solved(made.eval(), tasks)


def rows_of_features() -> tuple[Tensor, Tensor]:
    g = Generator().manual_seed(0)
    return 1e10 * torch.randn(1, 6, 4, generator=g, dtype=torch.float64), torch.tensor([[0, 1, 2, 0, 1, 2]])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: learner(steps=-1), "steps must be at least 0, not -1"),
        (lambda: learner(inner_lr=0.0), "inner learning rate must be above 0"),
        (lambda: learner(adaptation="adam", rates="layer"), "adaptation=adam .* goes with rates=fixed"),
        (lambda: learner(scope="head", inner_lr=1e300).eval().adapt(*rows_of_features(), WAYS), "no longer numbers"),
        (lambda: learner(head="shared").use(test_steps=1), "one shared row .* gradient .* is zero"),
        (lambda: learner(head="shared", steps=1), "one shared row .* gradient .* is zero"),
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
    from metarep.batches import TaskBatch
    from metarep.tasks import TaskIndex

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
    from metarep.measure import Setting, measure_all

    made = GradientDescent(small_encoder(), ways=3, head="rows", scope="all", steps=1)
    cells = [Setting(range(3, 4), range(1, 2), 2, 3, normalisation=n) for n in ("transductive", None, "running")]
    reports = [report for _, report in measure_all(made, drawings[1], cells, references=False)]
    assert [(report.normalisation, report.protocol) for report in reports] == [
        ("transductive", "transductive"),
        ("support", "inductive"),
        ("running", "inductive"),
    ]
    assert reports[1].learner == "descent, 1 step"
