"""Every method over bodies that people bring, against textbook loops in float64."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from bodies import DRAWING, PLAIN, REFUSED, C, make
from thinning import few
from torch import Generator, Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from metarep.data.batch import Batch, LabelledBatch, LabelledViewBatch, TaskBatch, ViewBatch
from metarep.data.tasks import TaskIndex
from metarep.encoders import Encoder, Preprocess
from metarep.encoders.normalisation import norm_parameters
from metarep.errors import MetarepError
from metarep.learners import GradientDescent
from metarep.learners.inner_loop import InnerLoop, Task, meta_loss
from metarep.methods import METHODS, Method, build_method
from metarep.weights.checkpoint import load_checkpoint, save_checkpoint
from metarep.weights.record import RunRecord

WAYS, SHOTS, QUERIES, TASKS, LR = 2, 2, 2, 2, 0.2
SIZE = Preprocess((8, 8), 1, (0.0,), (1.0,))


def tasks() -> Task:
    g = Generator().manual_seed(1)
    images = torch.rand(TASKS, WAYS * (SHOTS + QUERIES), 1, 8, 8, generator=g, dtype=torch.float64)
    labels = torch.arange(WAYS).repeat(TASKS, SHOTS + QUERIES)
    images += 0.7 * labels.view(*labels.shape, 1, 1, 1) * torch.linspace(0, 1, 8, dtype=torch.float64)
    cut = WAYS * SHOTS
    return Task(images[:, :cut], labels[:, :cut], images[:, cut:], labels[:, cut:])


@contextmanager
def by_hand(images: int, rows: int) -> Iterator[None]:
    """While networks run: torch's batch norm takes mean and variance of the first ``rows`` of so many images.

    The hard sigmoid is written out, because torch's has no second derivative.
    """
    torchs, sigmoid = functional.batch_norm, functional.hardsigmoid

    def explicit(
        x: Tensor, mean: Any, variance: Any, weight: Any, bias: Any, training: bool, momentum: Any, eps: float
    ):
        some = x[: len(x) // images * rows]
        axes = [0, *range(2, x.ndim)]
        x = (x - some.mean(axes, keepdim=True)) / (some.var(axes, correction=0, keepdim=True) + eps).sqrt()
        shape = (1, -1, *[1] * (x.ndim - 2))
        return x * weight.view(shape) + bias.view(shape)

    functional.batch_norm = explicit
    functional.hardsigmoid = lambda x, inplace=False: ((x + 3) / 6).clamp(0, 1)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        functional.batch_norm, functional.hardsigmoid = torchs, sigmoid


def logits(body: nn.Module, w: dict[str, Tensor], head: list[Tensor], x: Tensor, rows: int) -> Tensor:
    with by_hand(len(x), rows):
        return functional_call(body, w, (x,)) @ head[0].T + head[1]


def solve(
    body: nn.Module, w: dict[str, Tensor], head: list[Tensor], x: Tensor, y: Tensor, steps: int
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Steps of gradient descent on the support, as a textbook has them."""
    free = [name for name, parameter in w.items() if parameter.requires_grad]
    for _ in range(steps):
        loss = functional.cross_entropy(logits(body, w, head, x, len(x)), y)
        slopes = torch.autograd.grad(loss, [*(w[name] for name in free), *head], create_graph=True)
        w = w | {name: w[name] - LR * slope for name, slope in zip(free, slopes, strict=False)}
        head = [part - LR * slope for part, slope in zip(head, slopes[-2:], strict=True)]
    return w, head


def textbook(body: nn.Module, head: list[Tensor], given: Task, steps: int) -> tuple[Tensor, list[Tensor]]:
    """Loss over tasks, and the logits of each task's queries."""
    losses, found = [], []
    start = dict(body.named_parameters())  # now: torch's functional_call leaves others in a layer of two names
    for xs, ys, xq, yq in given.singles():
        w, own = solve(body, start, head, xs, ys, steps)
        found.append(logits(body, w, own, torch.cat([xs, xq]), len(xs))[len(xs) :])
        losses.append(functional.cross_entropy(found[-1], yq))
    return torch.stack(losses).mean(), found


def learner(name: str, **settings: Any) -> GradientDescent:
    encoder = Encoder(make(name), SIZE)
    settings = {"head": "rows", "scope": "all", "steps": 2, "inner_lr": LR} | settings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return GradientDescent(encoder, ways=WAYS, **settings).double().train()


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of vmap, for some operations
@pytest.mark.parametrize("name", few(PLAIN, 3))
def test_the_meta_gradient_is_a_textbooks(name: str) -> None:
    """By the path for processors and, mapped over tasks, by the one for accelerators; then in evaluation."""
    made, given, body = learner(name), tasks(), make(name, plain=True).train()
    head = [made.head.weight, made.head.bias]
    parameters = [parameter for parameter in body.parameters() if parameter.requires_grad]
    torch.manual_seed(5)
    want, _ = textbook(body, head, given, 2)
    wanted = torch.autograd.grad(want, [*parameters, *head])
    for path in ("exact",) if name in DRAWING else ("exact", "mapped"):
        torch.manual_seed(5)
        got = meta_loss(made.start, InnerLoop(2, made.adapted), given, WAYS, path)
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
        own = [parameter for parameter in made.encoder.parameters() if parameter.requires_grad]
        for one, other in zip(torch.autograd.grad(got, [*own, *head]), wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)
    made.eval()
    _, wanted_logits = textbook(make(name, plain=True).eval(), head, given, 2)
    with torch.no_grad():
        found = made.logits(made.adapt(given.support, given.support_y, WAYS), given.query)
    torch.testing.assert_close(found, torch.stack(wanted_logits).detach(), rtol=1e-8, atol=1e-9)


def batch(eats: type[Batch]) -> Batch:
    support, support_y, query, query_y = tasks()
    images = torch.cat([support, query], 1)
    place = torch.arange(images.shape[0] * images.shape[1]).view(images.shape[:2])
    flat, cut = images.flatten(0, 1), support.shape[1]
    if eats is TaskBatch:
        classes = torch.zeros(TASKS, WAYS).long()
        return TaskBatch(
            flat, place.flatten(), TaskIndex(place[:, :cut], place[:, cut:], support_y, query_y, classes, WAYS)
        )
    labels = torch.cat([support_y, query_y], 1).flatten()
    if eats is LabelledViewBatch:
        return LabelledViewBatch(flat, place.flatten(), labels, labels, flat.flip(-1))
    if eats is LabelledBatch:
        return LabelledBatch(flat, place.flatten(), labels, labels)
    return ViewBatch(flat, place.flatten(), flat.flip(-1))


def method_of(kind: str, name: str) -> Method:
    more = {
        "maml": {"ways": WAYS, "inner_steps": 2},
        "reptile": {"ways": WAYS, "inner_steps": 2, "minibatch": 0},
        "anil": {"ways": WAYS},
        "moco": {"queue": 16, "norm_groups": 2},
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return build_method(kind, Encoder(make(name), SIZE), more.get(kind, {})).double().train()


@pytest.mark.slow
@pytest.mark.parametrize("name", few(PLAIN, 3))
def test_every_method_trains_it(name: str) -> None:
    """Features are the body's own, whatever the method; a step moves what is not frozen, and a target has its own."""
    plain, images = make(name, plain=True).train(), batch(ViewBatch).images
    torch.manual_seed(3)
    want = plain(SIZE(images))
    for kind in METHODS:
        method = method_of(kind, name)
        encoder = method.learner.encoder
        torch.manual_seed(3)
        torch.testing.assert_close(method.learner.embed(images), want)
        before = [parameter.detach().clone() for parameter in encoder.parameters()]
        step = method.step(batch(method.eats), progress=0.0, generator=Generator())
        assert step.loss.isfinite(), kind
        optimizer = method.optimizer(0.1, 0.0)
        step.loss.backward()
        optimizer.step()
        for (path, now), then in zip(encoder.named_parameters(), before, strict=True):
            assert (now.grad is not None) == now.requires_grad, (kind, path)
            assert now.requires_grad or torch.equal(now, then), (kind, path)
        if isinstance(target := getattr(method, "target", None), nn.Module):
            torch.manual_seed(3)
            torch.testing.assert_close(target[0](images), want, msg=f"the target of {kind} runs the trained network")
        method.after_step(step.carry, 0.0)


@pytest.mark.parametrize("name", few(PLAIN, 3))
def test_reptile_ends_where_a_textbook_does(name: str) -> None:
    method, given, body = method_of("reptile", name), tasks(), make(name, plain=True).train()
    support, y = torch.cat([given.support, given.query], 1), torch.cat([given.support_y, given.query_y], 1)
    head, start, ends = [*method.learner.head.parameters()], dict(body.named_parameters()), []
    free = [key for key, parameter in start.items() if parameter.requires_grad]
    torch.manual_seed(5)
    for images, labels in zip(support, y, strict=True):
        now = {**start, "head.weight": head[0], "head.bias": head[1]}
        own = [*free, "head.weight", "head.bias"]
        second = {key: torch.zeros_like(now[key]) for key in own}
        for t in (1, 2):
            scores = logits(body, {key: now[key] for key in start}, [now["head.weight"], now["head.bias"]], images, 8)
            slopes = torch.autograd.grad(functional.cross_entropy(scores, labels), [now[key] for key in own])
            for key, slope in zip(own, slopes, strict=True):
                second[key] = 0.999 * second[key] + 0.001 * slope**2
                step = 1e-3 * (1 - 0.999**t) ** 0.5 * slope / (second[key].sqrt() + 1e-8)
                now[key] = (now[key] - step).detach().requires_grad_()
        ends.append([*now.values()])
    torch.manual_seed(5)
    found = method.step(batch(TaskBatch), progress=0.0, generator=Generator()).carry
    for one, other in zip(found, ends, strict=True):
        for weight, wanted in zip(one.weights, other, strict=True):
            torch.testing.assert_close(weight, wanted.detach(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("kind", ["maml", "reptile"])
def test_a_layer_with_its_own_state_is_refused_by_name(kind: str, name: str) -> None:
    method = method_of(kind, name)
    with pytest.raises(MetarepError, match=REFUSED[name][1]):
        method.step(batch(TaskBatch), progress=0.0, generator=Generator())
    anil = method_of("anil", name)
    assert anil.step(batch(TaskBatch), progress=0.0, generator=Generator()).loss.isfinite()


def test_a_norm_that_is_shared_or_used_again_moves_its_statistics_as_torch_does() -> None:
    """After a step of maml: towards what each call saw, one after another."""
    for name in ("norm used three times", "norm of two parents, two names"):
        method, body, seen = method_of("maml", name), make(name, plain=True).train(), []
        step = method.step(batch(TaskBatch), progress=0.0, generator=Generator())
        assert step.loss.isfinite()
        for images in tasks().support:  # alone, torch's layers see the same, from the same start
            body.load_state_dict(make(name, plain=True).state_dict())
            body(images)
            seen.append(norm_of(body).running_mean.clone())
        torch.testing.assert_close(norm_of(method.learner.encoder.body).running_mean, torch.stack(seen).mean(0))


def norm_of(body: nn.Module) -> nn.BatchNorm2d:
    return next(layer for layer in body.modules() if isinstance(layer, nn.BatchNorm2d))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("path", ["exact", "mapped"])
def test_shared_norms_work_under_running_statistics(path: str) -> None:
    made, given = learner("norm of two parents, two names", normalisation="running", steps=1), tasks()
    norm_of(made.encoder.body).running_mean.fill_(0.3)
    loss = meta_loss(made.start, InnerLoop(1, made.adapted), given, WAYS, path)
    body = make("norm of two parents, two names", plain=True).eval()
    norm_of(body).running_mean.fill_(0.3)
    start, head, losses = dict(body.named_parameters()), [made.head.weight, made.head.bias], []
    for xs, ys, xq, yq in given.singles():
        w = {**start, "head.weight": head[0], "head.bias": head[1]}

        def scores(w: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(body, {k: w[k] for k in start}, (x,)) @ w["head.weight"].T + w["head.bias"]

        slopes = torch.autograd.grad(functional.cross_entropy(scores(w, xs), ys), list(w.values()))
        w = {k: v - LR * slope for (k, v), slope in zip(w.items(), slopes, strict=True)}
        losses.append(functional.cross_entropy(scores(w, xq), yq))
    torch.testing.assert_close(loss, torch.stack(losses).mean(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("head", ["rows", "prototype"])
def test_a_float64_body_works_in_a_float32_learner(head: str) -> None:
    encoder = Encoder(make("MBConv, squeeze and excite"), SIZE)
    made = GradientDescent(encoder, ways=WAYS, head=head, scope="all", steps=1, inner_lr=LR)
    given = tasks()
    single = Task(given.support.float(), given.support_y, given.query.float(), given.query_y)
    assert made.embed(single.support[0]).dtype == torch.float32
    made.task_loss(*single, WAYS).backward()
    assert encoder.body.stem[0].weight.grad.any()
    with torch.no_grad():
        state = made.eval().adapt(single.support, single.support_y, WAYS)
        assert made.logits(state, single.query).isfinite().all()


class Once(torch.autograd.Function):
    """An operation that can be differentiated only once, as many that people compile themselves."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, above: Tensor) -> Tensor:
        return above


def test_what_can_be_differentiated_once_only_says_to_take_the_first_order() -> None:
    body = nn.Sequential(nn.Conv2d(1, C, 8), nn.Flatten()).double()
    body[0].register_forward_hook(lambda module, given, found: Once.apply(found))
    made, given = GradientDescent(Encoder(body, SIZE), ways=WAYS, head="rows", scope="all", steps=1), tasks()
    made.double()
    with pytest.raises(
        MetarepError,
        match=r"can be differentiated only once, .*; take order=1, or put another layer there",
    ):
        made.task_loss(*given, WAYS)
    assert made.task_loss(*given, WAYS, order=1).isfinite()


def test_a_body_that_changes_between_support_and_query_is_refused() -> None:
    class Growing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.calls = nn.BatchNorm2d(1), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            for _ in range(2 if self.calls == 1 else 3):
                x = self.norm(x)
            return x.flatten(1)

    made = GradientDescent(Encoder(Growing(), SIZE), ways=WAYS, head="rows", scope="all", steps=1).double().eval()
    made.encoder.body.calls, given = 0, tasks()
    state = made.adapt(given.support, given.support_y, WAYS)
    assert state["statistic.0"].shape[1] == 3  # of the last pass
    made.encoder.body.calls = 1
    state["statistic.0"], state["statistic.1"] = state["statistic.0"][:, :2], state["statistic.1"][:, :2]
    with pytest.raises(MetarepError, match="'norm' runs 3 times for the queries, and ran 2 times for the support"):
        made.logits(state, given.query)


class Owned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, C, 8), nn.BatchNorm2d(C)
        scale = nn.Parameter(torch.ones(1))
        self.scale = scale
        self.conv.register_forward_hook(lambda module, given, found: found * scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).flatten(1)


def test_a_function_that_holds_a_parameter_is_refused() -> None:
    made = GradientDescent(Encoder(Owned().double(), SIZE), ways=WAYS, head="rows", scope="all", steps=1).double()
    with pytest.raises(MetarepError, match=r"holds a parameter of shape \(1,\), .* read it from a module"):
        made.task_loss(*tasks(), WAYS)


def test_norm_parameters_are_not_adapted() -> None:
    """Norms of every kind are spared, by type or by name; a matrix is not, whatever its layer is called."""
    spared = {
        "ConvNeXt, channels first": ["stem.1.weight", "stem.1.bias", "norm.weight", "norm.bias"],
        "group norm": ["norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"],
        "instance norm": ["norm1.weight", "norm1.bias"],
        "activation inside (timm)": ["norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"],
    }
    for name, wanted in spared.items():
        made = learner(name, scope="all-but-norms")
        names = [key for key, _ in made.encoder.body.named_parameters()]
        assert [key for i, key in enumerate(names) if i not in made.adapted] == wanted

    class FilterResponseNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tau, self.matrix = nn.Parameter(torch.ones(1, C, 1, 1)), nn.Parameter(torch.ones(C, C))

    body = nn.Sequential(FilterResponseNorm())
    assert norm_parameters(body) == {id(body[0].tau)}


def test_frozen_parameters_stay_whatever_the_rates_and_can_be_freed_again() -> None:
    for settings in ({"rates": "layer"}, {"rates": "parameter"}, {"adaptation": "adam", "inner_lr": 0.01}):
        made, given = learner("frozen stem", **settings), tasks()
        frozen = [i for i, p in enumerate(made.encoder.body.parameters()) if not p.requires_grad]
        assert frozen
        with torch.no_grad():
            state = made.adapt(given.support, given.support_y, WAYS)
        for i, (name, parameter) in enumerate(made.encoder.body.named_parameters()):
            moved = not torch.equal(state[f"weight.{i}"][0], parameter)
            free = name == "conv2.bias"  # a norm follows, so its gradient is zero, exactly or but for rounding
            assert moved == (i not in frozen) or free, (settings, name)
        if made.adaptation == "sgd":
            made.task_loss(*given, WAYS).backward()
        made.encoder.requires_grad_(True)
        with torch.no_grad():
            state = made.adapt(given.support, given.support_y, WAYS)
        assert not torch.equal(state["weight.0"][0], next(made.encoder.body.parameters()))


def test_a_run_knows_what_was_frozen(tmp_path: Path, small_encoder: Any) -> None:
    method = build_method("maml", small_encoder(), {"ways": 3})
    method.learner.encoder.body[0].requires_grad_(False)
    save_checkpoint(tmp_path / "model", method, RunRecord("maml", {"ways": 3}), [])
    found = load_checkpoint(tmp_path / "model").method.learner
    assert found.adapted == method.learner.adapted
    assert len(found.adapted) == 14 - 3


def test_a_frozen_encoder_is_refused_with_advice() -> None:
    encoder = Encoder(make("group norm"), SIZE).requires_grad_(False)
    for kind in ("protonet", "siamese", "triplet"):
        with pytest.raises(
            MetarepError, match=rf"{kind} has nothing to train: its encoder is frozen.*leave a part to be trained"
        ):
            build_method(kind, encoder, {}).optimizer(0.1, 0.0)
    assert build_method("baseline", encoder, {}).optimizer(0.1, 0.0)
