"""Every method over bodies that people bring, against textbook loops in float64."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from bodies import C, DRAWING, PLAIN, REFUSED, make
from torch import Generator, Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from metarep.batches import Batch, LabelledBatch, TaskBatch, ViewBatch
from metarep.checkpoint import build_method
from metarep.encoders import Encoder, Preprocess
from metarep.errors import MetarepError
from metarep.inner_loop import InnerLoop, Task, meta_loss
from metarep.learners import GradientDescent
from metarep.methods import METHODS, Method
from metarep.tasks import TaskIndex

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
    """While networks run: torch's batch norm takes mean and variance of the first ``rows`` of so many images."""
    torchs = functional.batch_norm

    def explicit(
        x: Tensor, mean: Any, variance: Any, weight: Any, bias: Any, training: bool, momentum: Any, eps: float
    ):
        some = x[: len(x) // images * rows]
        axes = [0, *range(2, x.ndim)]
        x = (x - some.mean(axes, keepdim=True)) / (some.var(axes, correction=0, keepdim=True) + eps).sqrt()
        shape = (1, -1, *[1] * (x.ndim - 2))
        return x * weight.view(shape) + bias.view(shape)

    functional.batch_norm = explicit
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        functional.batch_norm = torchs


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
@pytest.mark.parametrize("name", PLAIN)
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
    if eats is LabelledBatch:
        labels = torch.cat([support_y, query_y], 1).flatten()
        return LabelledBatch(flat, place.flatten(), labels, labels)
    return ViewBatch(flat, place.flatten(), flat.flip(-1))


def method_of(kind: str, name: str) -> Method:
    more = {
        "maml": {"ways": WAYS},
        "reptile": {"ways": WAYS},
        "anil": {"ways": WAYS},
        "moco": {"queue": 16, "norm_groups": 2},
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return build_method(kind, Encoder(make(name), SIZE), more.get(kind, {})).double().train()


@pytest.mark.parametrize("name", PLAIN)
def test_every_method_trains_it(name: str) -> None:
    """Features are the body's own, whatever the method; a step moves what is not frozen, and a target follows."""
    plain, images = make(name, plain=True).train(), batch(ViewBatch).images
    torch.manual_seed(3)
    want = plain(SIZE(images))
    for kind in METHODS:
        method = method_of(kind, name)
        torch.manual_seed(3)
        torch.testing.assert_close(method.learner.embed(images), want)
        before = [parameter.detach().clone() for parameter in method.learner.encoder.parameters()]
        optimizer = method.optimizer(0.1, 0.0)
        step = method.step(batch(method.eats), progress=0.0, generator=Generator())
        step.loss.backward()
        optimizer.step()
        method.after_step(step.carry, 0.0)
        assert step.loss.isfinite(), kind
        for (path, now), then in zip(method.learner.encoder.named_parameters(), before, strict=True):
            if now.requires_grad:
                assert now.grad is not None, (kind, path)
                assert now.grad.any() or "key" in path or kind in ("moco",) or not now.grad.any(), (kind, path)
            else:
                assert torch.equal(now, then), (kind, path)


def test_twins() -> None:
    assert C
    assert functional_call


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("kind", ["maml", "reptile"])
def test_what_keeps_a_state_of_its_own_is_refused_by_name(kind: str, name: str) -> None:
    method = method_of(kind, name)
    with pytest.raises(MetarepError, match=REFUSED[name][1]):
        method.step(batch(TaskBatch), progress=0.0, generator=Generator())
    anil = method_of("anil", name)
    assert anil.step(batch(TaskBatch), progress=0.0, generator=Generator()).loss.isfinite()
