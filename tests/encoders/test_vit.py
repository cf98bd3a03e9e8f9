"""ViT against one that is written out by hand, and inner loops through its attention against textbook loops."""

from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from metarep.encoders import Encoder, Preprocess, ViT, build_encoder
from metarep.encoders.vit.positions import resampled
from metarep.errors import MetarepError
from metarep.learners import GradientDescent
from metarep.learners.inner_loop import InnerLoop, Task, meta_loss
from metarep.methods import build_method

WAYS, LR, EPS = 2, 0.1, 1e-6
SIZE = Preprocess((8, 12), 1, (0.0,), (1.0,))
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "both, registers, layer scale": {"features": "both", "registers": 2, "layer_scale": 0.5},
    "rope, swiglu, mean": {"positions": "rope", "activation": "swiglu", "features": "mean"},
    "norm first, quick gelu, projection": {
        "norm_first": True, "activation": "quick-gelu", "patch_bias": False, "project": 5,
    },
    "attention pool, no class token": {"features": "attention", "class_token": False, "activation": "gelu-tanh"},
}  # fmt: skip


def made(form: str) -> ViT:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = ViT(1, width=16, depth=2, heads=2, patch=4, grid=(2, 3), **FORMS[form]).double()
        for parameter in body.parameters():
            parameter.data.add_(0.1 * torch.randn(parameter.shape, dtype=torch.float64))
    return body


def norm(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + EPS).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def attend(q: Tensor, k: Tensor, v: Tensor, turn: Tensor | None = None, heads: int = 2) -> Tensor:
    """One head after another; with ``turn``, features ``i`` and ``i + dim/2`` of a patch are one complex number."""
    found = []
    for q1, k1, v1 in zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True):
        if turn is not None:
            q1, k1 = (turned(each, turn) for each in (q1, k1))
        found.append((q1 @ k1.mT / q1.shape[-1] ** 0.5).softmax(-1) @ v1)
    return torch.cat(found, -1)


def turned(x: Tensor, turn: Tensor) -> Tensor:
    front, x = x[:, : -len(turn)], x[:, -len(turn) :]
    numbers = torch.complex(*x.chunk(2, -1)) * torch.polar(torch.ones_like(turn), turn)
    return torch.cat([front, torch.cat([numbers.real, numbers.imag], -1)], 1)


def perceptron(x: Tensor, w: dict[str, Tensor], name: str, activation: str) -> Tensor:
    up = linear(x, w, f"{name}.up")
    if activation == "swiglu":
        gate = linear(x, w, f"{name}.gate")
        return linear(gate * gate.sigmoid() * up, w, f"{name}.down")
    inside = {
        "gelu": lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2,
        "gelu-tanh": lambda x: x / 2 * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
        "quick-gelu": lambda x: x * torch.sigmoid(1.702 * x),
    }[activation]
    return linear(inside(up), w, f"{name}.down")


def by_hand(w: dict[str, Tensor], x: Tensor, form: str) -> Tensor:
    """The features of images of 8 x 12 px, without a layer of torch."""
    own = {"features": "class", "activation": "gelu", "registers": 0, "class_token": True} | FORMS[form]
    cut = [x[:, 0, i : i + 4, j : j + 4].flatten(1) for i in (0, 4) for j in (0, 4, 8)]
    x = torch.stack(cut, 1) @ w["patch.weight"].flatten(1).T + w.get("patch.bias", torch.zeros(()))
    turn = None
    if own.get("positions") == "rope":
        places = torch.tensor([[i, j] for i in (-0.5, 0.5) for j in (-2 / 3, 0, 2 / 3)], dtype=torch.float64)
        turn = torch.cat([2 * torch.pi * places[:, :1] / p for p in (1, 10)], 1)  # a head has 8 features: 2 periods
        turn = torch.cat([turn, *[2 * torch.pi * places[:, 1:] / p for p in (1, 10)]], 1)
    else:
        x = x + w["positions"][own["class_token"] :]
    front = []
    if own["class_token"]:
        first = w["class_token"] + (0 if turn is not None else w["positions"][0])
        front.append(first.expand(len(x), 1, -1))
    if own["registers"]:
        front.append(w["registers"].expand(len(x), -1, -1))
    x = torch.cat([*front, x], 1)
    x = norm(x, w, "norm_first") if "norm_first.weight" in w else x
    for i in (0, 1):
        y = linear(norm(x, w, f"blocks.{i}.norm1"), w, f"blocks.{i}.attention.qkv")
        y = linear(attend(*y.chunk(3, -1), turn), w, f"blocks.{i}.attention.out")
        x = x + y * w.get(f"blocks.{i}.scale1", 1.0)
        y = perceptron(norm(x, w, f"blocks.{i}.norm2"), w, f"blocks.{i}.mlp", own["activation"])
        x = x + y * w.get(f"blocks.{i}.scale2", 1.0)
    x = norm(x, w, "norm")
    if own["features"] == "attention":
        k, v = linear(x, w, "pool.kv").chunk(2, -1)
        q = linear(w["pool.probe"].expand(len(x), 1, -1), w, "pool.q")
        x = linear(attend(q, k, v), w, "pool.out")[:, 0]
        return x + perceptron(norm(x, w, "pool.norm"), w, "pool.mlp", own["activation"])
    rows = {"class": x[:, 0], "mean": x[:, -6:].mean(1), "both": torch.cat([x[:, 0], x[:, -6:].mean(1)], 1)}
    x = rows[own["features"]]
    return x @ w["project.weight"].T if "project.weight" in w else x


@pytest.mark.parametrize("form", FORMS)
def test_its_features_are_those_of_a_vit_written_out_by_hand(form: str) -> None:
    body = made(form)
    x = torch.randn(3, 1, 8, 12, generator=Generator().manual_seed(1), dtype=torch.float64)
    want = by_hand(dict(body.named_parameters()), x, form)
    torch.testing.assert_close(body(x), want, rtol=1e-12, atol=1e-12)
    assert body.dim_at((8, 12)) == want.shape[1]


def test_positions_are_resampled_as_torch_resamples_an_image() -> None:
    positions = torch.randn(20, 3, dtype=torch.float64)
    image = positions.T.reshape(1, 3, 4, 5)
    for to in ((2, 3), (7, 9), (4, 2)):
        for how, options in (
            ("antialias", {"size": to, "antialias": True}),
            ("plain", {"size": to}),
            ("offset", {"scale_factor": tuple((new + 0.1) / old for new, old in zip(to, (4, 5), strict=True))}),
        ):
            want = functional.interpolate(image, mode="bicubic", **options)[0].flatten(1).T
            if how == "offset" and 4 in to:  # an axis of the same side is left as it is
                continue
            torch.testing.assert_close(resampled(positions, (4, 5), to, how), want)
    assert resampled(positions, (4, 5), (4, 5)) is positions


def test_a_vit_takes_images_of_any_multiple_of_its_patch() -> None:
    body = made("plain").float()
    for size in ((4, 4), (16, 8), (40, 12)):
        assert Encoder(body, Preprocess(size, 1, (0.0,), (1.0,))).dim == 16
    with pytest.raises(MetarepError, match=r"images of 10 x 8 px do not divide into patches of 4 px; take a size of 8"):
        Encoder(body, Preprocess((10, 8), 1, (0.0,), (1.0,)))
    encoder = build_encoder("vit-tiny", SIZE)
    assert encoder.arch["grid"] == [2, 3]
    assert encoder.dim == 64


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 5}, "width=64 is not a multiple of heads=5"),
        ({"class_token": False}, "features=class needs a class token"),
        ({"depth": 10**6}, "depth must be from 1 to 256"),
        ({"positions": "rope", "heads": 32}, "heads of a multiple of 4 features, not 2"),
    ],
)
def test_settings_that_make_no_vit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(MetarepError, match=message):
        ViT(1, **settings)


def tasks() -> Task:
    g = Generator().manual_seed(1)
    y = torch.arange(WAYS).repeat(2, 4)
    images = torch.rand(2, 8, 1, 8, 12, generator=g, dtype=torch.float64) + 0.7 * y.view(2, 8, 1, 1, 1)
    return Task(images[:, :4], y[:, :4], images[:, 4:], y[:, 4:])


def textbook(body: ViT, head: list[Tensor], form: str, *, whole: bool) -> Tensor:
    """The mean query loss after two steps of gradient descent, of all weights or of the head, with a graph."""
    losses = []
    for xs, ys, xq, yq in tasks().singles():
        w, own = {name: value.clone() for name, value in body.named_parameters()}, [part.clone() for part in head]
        for _ in range(2):
            scores = by_hand(w, xs, form) @ own[0].T + own[1]
            moved = [*w.values(), *own] if whole else own
            slopes = torch.autograd.grad(functional.cross_entropy(scores, ys), moved, create_graph=True)
            now = [value - LR * slope for value, slope in zip(moved, slopes, strict=True)]
            own = now[-2:]
            w = dict(zip(w, now[:-2], strict=True)) if whole else w
        losses.append(functional.cross_entropy(by_hand(w, xq, form) @ own[0].T + own[1], yq))
    return torch.stack(losses).mean()


def learner(form: str, scope: Any) -> GradientDescent:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        encoder = Encoder(made(form), SIZE)
        return GradientDescent(encoder, ways=WAYS, head="rows", scope=scope, steps=2, inner_lr=LR).double().train()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of vmap, for some operations
@pytest.mark.parametrize(
    ("form", "path"),
    [
        ("plain", "exact"),
        ("both, registers, layer scale", "exact"),
        ("rope, swiglu, mean", "exact"),
        ("rope, swiglu, mean", "mapped"),
        ("attention pool, no class token", "exact"),
    ],
)
def test_maml_through_attention_is_a_textbooks_to_second_order(form: str, path: Any) -> None:
    found = learner(form, "all")
    head = [found.head.weight, found.head.bias]
    weights = [*found.encoder.body.parameters(), *head]
    want = textbook(found.encoder.body, head, form, whole=True)
    got = meta_loss(found.start, InnerLoop(2, found.adapted), tasks(), WAYS, path)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    for one, other in zip(torch.autograd.grad(got, weights), torch.autograd.grad(want, weights), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_anil_on_features_of_attention_is_a_textbooks() -> None:
    found = learner("plain", "head")
    head = [found.head.weight, found.head.bias]
    weights = [*found.encoder.body.parameters(), *head]
    xs, ys, xq, yq = tasks()
    rows = [found.embed(x.flatten(0, 1)).unflatten(0, (2, 4)) for x in (xs, xq)]
    got = found.task_loss(rows[0], ys, rows[1], yq, WAYS)
    want = textbook(found.encoder.body, head, "plain", whole=False)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    for one, other in zip(torch.autograd.grad(got, weights), torch.autograd.grad(want, weights), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_reptile_through_attention_ends_where_a_textbook_does() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        method = build_method(
            "reptile", Encoder(made("plain"), SIZE), {"ways": WAYS, "inner_steps": 2, "minibatch": 0}
        ).double()
    given, start = tasks(), method.learner
    images, labels = torch.cat([given.support, given.query], 1), torch.cat([given.support_y, given.query_y], 1)
    from metarep.learners.inner_loop import adapt_tasks

    found = adapt_tasks(start.start, InnerLoop(2, start.adapted, order=1), images, labels, WAYS, adam=start.adam)
    for end, x, y in zip(found, images, labels, strict=True):
        names = [name for name, _ in start.encoder.body.named_parameters()]
        now = [*start.encoder.body.parameters(), *start.head.parameters()]
        second = [torch.zeros_like(value) for value in now]
        for t in (1, 2):
            scores = by_hand(dict(zip(names, now, strict=False)), x, "plain") @ now[-2].T + now[-1]
            slopes = torch.autograd.grad(functional.cross_entropy(scores, y), now)
            second = [0.999 * old + 0.001 * slope**2 for old, slope in zip(second, slopes, strict=True)]
            now = [
                (value - 1e-3 * (1 - 0.999**t) ** 0.5 * slope / (square.sqrt() + 1e-8)).detach().requires_grad_()
                for value, slope, square in zip(now, slopes, second, strict=True)
            ]
        for one, other in zip(end.weights, now, strict=True):
            # Adam divides by the gradient, so rounding counts where it is nearly zero.
            torch.testing.assert_close(one, other.detach(), rtol=1e-7, atol=1e-7)


def test_fused_attention_is_used_where_no_second_derivative_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel in plain arithmetic is chosen in second-order inner loops only."""
    seen: list[bool] = []
    attention = functional.scaled_dot_product_attention

    def watched(*args: Any, **kwargs: Any) -> Tensor:
        seen.append(torch.backends.cuda.flash_sdp_enabled())
        return attention(*args, **kwargs)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", watched)
    found = learner("plain", "all")
    found.task_loss(*tasks(), WAYS, order=1)
    assert all(seen)
    seen.clear()
    found.task_loss(*tasks(), WAYS, order=2)
    assert not any(seen)
    assert isinstance(found.encoder.body.blocks[0], nn.Module)


@pytest.mark.parametrize("scope", ["norms", "last-block"])
@pytest.mark.parametrize("name", ["vit", "conv4"])
def test_inner_steps_change_only_their_scope_to_second_order(name: str, scope: Any) -> None:
    """By the fast path and by the textbook loop of the library."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        square = Preprocess((16, 16), 1, (0.0,), (1.0,))
        encoder = Encoder(made("plain"), SIZE) if name == "vit" else build_encoder("conv4", square, width=4)
        found = GradientDescent(encoder, ways=WAYS, head="rows", scope=scope, steps=2, inner_lr=LR).double()
    given = tasks()
    if name == "conv4":
        given = Task(*(x.repeat(1, 1, 1, 2, 2)[..., :16] if x.ndim == 5 else x for x in given))
    names = [key for key, _ in encoder.body.named_parameters()]
    moved = {names[i] for i in found.adapted if i < len(names)}
    last = ("blocks.1.", "norm.") if name == "vit" else "3."
    assert moved == {key for key in names if (key.startswith(last) if scope == "last-block" else is_norm(key, name))}
    inner = InnerLoop(2, found.adapted)
    losses = [meta_loss(found.start, inner, given, WAYS, path) for path in ("exact", "plain")]
    torch.testing.assert_close(*losses, rtol=1e-10, atol=1e-10)
    one, other = (torch.autograd.grad(loss, list(encoder.parameters())) for loss in losses)
    for own, wanted in zip(one, other, strict=True):
        torch.testing.assert_close(own, wanted, rtol=1e-9, atol=1e-10)


def is_norm(key: str, name: str) -> bool:
    return "norm" in key if name == "vit" else key.split(".")[1] == "1"
