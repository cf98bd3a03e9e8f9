"""The inner loop written out by hand in float64, and learners and tasks for it: the oracle of every path."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from thinning import few
from torch import Generator, Tensor, nn
from torch.nn import functional

from metarep.encoders import Preprocess, build_encoder
from metarep.errors import MetarepError
from metarep.learners import GradientDescent
from metarep.learners.class_means import class_means
from metarep.learners.inner_loop import InnerLoop, Task, meta_loss

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
        # Copies, so that the inner gradient of the body does not go through a head that was made from it.
        now, total = [tensor.clone() for tensor in (*flat, *head)], torch.zeros((), dtype=torch.float64)
        for step in range(made.steps):
            loss = functional.cross_entropy(features(now[:-2], xs, None) @ now[-2].T + now[-1], ys)
            inner_gradients = torch.autograd.grad(loss, now, create_graph=True)
            rates = made.rates.table(made.steps)[step]
            new, place = list(now), 0
            for i in range(14):
                if made.scope == "all-but-norms" and i in norms:
                    continue
                new[i] = now[i] - rates[place] * (inner_gradients[i] if order == 2 else inner_gradients[i].detach())
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
    ({"steps": 3}, 1, (0.2, 0.3, 0.5)),
    ({"normalisation": "running", "head": "prototype"}, 2, None),
    ({"rates": "layer", "scope": "all-but-norms"}, 2, (0.4, 0.6)),  # make check stops here
    ({}, 1, None),
    ({"steps": 3}, 2, (0.2, 0.3, 0.5)),
    ({"normalisation": "transductive"}, 2, None),
    ({"rates": "parameter"}, 2, None),
    ({"rates": "layer"}, 2, None),
    ({"head": "prototype"}, 2, None),
    ({"head": "prototype", "rates": "layer"}, 1, None),
    ({"head": "shared"}, 2, None),
]


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


class PathContract:
    """What every path of ``meta_loss`` promises; a subclass gives the fixture ``path``."""

    @pytest.mark.parametrize("case", few(CASES, 4), ids=[f"{c[0]} order {c[1]} {c[2] or ''}" for c in CASES])
    def test_every_path_is_the_hand_written_loop(self, case: tuple[dict[str, Any], int, Any], path: str) -> None:
        settings, order, weights = case
        made, tasks = learner(**settings), tasks_of()
        want = reference(made, tasks, order, weights)
        wanted = gradients(want, made)
        got = meta_loss(made.start, InnerLoop(made.steps, made.adapted, order, weights), tasks, WAYS, path)
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
        same(gradients(got, made), wanted)

    def test_a_batch_is_the_mean_of_its_tasks_and_of_its_chunks(self, path: str) -> None:
        made, tasks = learner(), tasks_of(n=4)
        inner = InnerLoop(2, made.adapted)

        def of(rows: slice) -> dict[str, Tensor]:
            return gradients(meta_loss(made.start, inner, Task(*(part[rows] for part in tasks)), WAYS, path), made)

        whole = of(slice(None))
        for cuts in ([0, 1, 2, 3, 4], [0, 2, 4]):
            parts = [of(slice(a, b)) for a, b in itertools.pairwise(cuts)]
            same({name: sum(part[name] for part in parts) / len(parts) for name in whole}, whole)

    def test_without_inner_steps_it_is_the_plain_query_loss(self, path: str) -> None:
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

    def test_training_moves_running_statistics_to_those_of_the_support(self, path: str) -> None:
        made, tasks = learner(), tasks_of()
        first = made.encoder.body[0]
        meta_loss(made.start, InnerLoop(made.steps, made.adapted), tasks, WAYS, path)
        rows = torch.stack([first[0](x).mean((0, 2, 3)) for x in tasks.support]).mean(0)
        torch.testing.assert_close(first[1].running_mean, 0.1 * rows)


class KnownGradientContract:
    """What the paths that compute the gradient along with the loss promise besides."""

    @pytest.mark.slow
    @pytest.mark.parametrize("order", [1, 2])
    @pytest.mark.parametrize(("head", "least"), [("rows", 0.999), ("prototype", 0.99999)])
    def test_bfloat16_gives_nearly_the_same_gradient(self, head: str, least: float, path: str, order: int) -> None:
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

    def test_an_image_that_is_no_number_is_noticed(self, path: str) -> None:
        made, tasks = learner(width=32, dtype=torch.float32), tasks_of(dtype=torch.float32)
        tasks.support[1, 0] = torch.nan
        with pytest.raises(MetarepError, match="the inner loss is nan before inner step 1"):
            meta_loss(made.start, InnerLoop(1, made.adapted), tasks, WAYS, path)
        with pytest.raises(MetarepError, match="the inner loss is nan before inner step 1"):
            solved(made.eval(), tasks)
