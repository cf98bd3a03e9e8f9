"""What label-free methods carry from step to step: the queue, groups of normalisation, targets that follow."""

import copy
import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from contrasting import advance, make, views
from torch import Generator, Tensor, nn
from torch.nn import functional

from metarep.data.split import Split
from metarep.encoders import Encoder
from metarep.errors import MetarepError
from metarep.methods import METHODS, MoCo
from metarep.methods.byol import tau_at
from metarep.methods.contrastive import KeyQueue, Projector, encode_blocks, encode_strides, follow, frozen_copy, nt_xent

Drawings = tuple[Split, Split]
Make = Callable[..., Encoder]


# the queue


def test_the_queue_keeps_the_last_keys_in_order_whatever_the_batch() -> None:
    queue, sent = KeyQueue(10, 3), []
    assert queue.valid.all(), "noise, until there is something better"
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(10))
    for n in (4, 4, 4, 7, 10, 3, 23, 1):  # 10 is no multiple of any: nothing is dropped at the end of the ring
        keys = torch.randn(n, 3, generator=Generator().manual_seed(n))
        queue.enqueue(keys)
        sent += keys.tolist()
        assert queue.fill.item() == min(10, len(sent)) == queue.valid.sum()
        assert queue.pointer.item() == len(sent) % 10
        ring = [sent[i] for i in range(max(0, len(sent) - 10), len(sent))]
        places = [(len(sent) - len(ring) + i) % 10 for i in range(len(ring))]
        assert torch.equal(queue.keys[places], torch.tensor(ring))
        assert queue.valid[places].all()


def test_keys_are_queued_after_the_backward_pass(drawings: Drawings, small_encoder: Make) -> None:
    method = make("moco", small_encoder())
    for expected in (16, 32, 40, 40):
        before = {name: value.clone() for name, value in method.queue.state_dict().items()}
        step = method.step(views(drawings[0], seed=expected), progress=0.0, generator=Generator())
        assert all(torch.equal(before[name], value) for name, value in method.queue.state_dict().items())
        step.loss.backward()
        method.after_step(step.carry, 0.0)
        assert method.queue.fill.item() == expected
        rows = [(before["pointer"].item() + i) % 40 for i in range(16)]
        assert torch.equal(method.queue.keys[rows], step.carry)
    step = method.step(views(drawings[0]), progress=0.0, generator=Generator())
    method.after_step(step.carry, 0.0)
    with pytest.raises(RuntimeError, match="inplace"):
        step.loss.backward()


def test_a_key_is_never_among_its_own_negatives(
    drawings: Drawings, small_encoder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    real = sys.modules[MoCo.__module__].info_nce

    def spy(query: Tensor, key: Tensor, negatives: Tensor, *rest: Any) -> Tensor:
        seen.append((key, negatives[rest[1]].clone()))
        return real(query, key, negatives, *rest)

    monkeypatch.setattr(MoCo.__module__ + ".info_nce", spy)
    method = make("moco", small_encoder(), symmetric=True)
    for seed in range(3):
        advance(method, drawings[0], seed)
    assert len(seen) == 6
    assert [len(negatives) for _, negatives in seen] == [40, 40, 32, 32, 40, 40], "noise is left out from step 2 on"
    for key, negatives in seen:
        assert (key @ negatives.T).max() < 1 - 1e-5
        assert not key.requires_grad
    assert torch.equal(torch.cat([key for key, _ in seen[2:4]]), seen[4][1][list(range(32, 40)) + list(range(24))])


def test_the_queue_has_the_size_of_the_settings_and_wrong_settings_are_refused(small_encoder: Make) -> None:
    first = MoCo(small_encoder(), head="linear", hidden=32, queue=100, outputs=12)
    assert [type(layer) for layer in first.projector] == [nn.Linear]
    assert first.queue.keys.shape == (100, 12)
    normed = MoCo(small_encoder(), head="mlp-norm").projector
    assert [type(layer) for layer in normed] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    second = MoCo(small_encoder())
    assert [type(layer) for layer in second.projector] == [nn.Linear, nn.ReLU, nn.Linear]
    for name, settings, text in (
        ("moco", {"queue": 0}, "queue must hold at least 1 key, not 0"),
        ("moco", {"momentum": 1.5}, "momentum is a share of the weights, 0 to 1, not 1.5"),
        ("moco", {"norm_groups": 0}, "norm_groups must be at least 1, not 0"),
        ("moco", {"temperature": 0.0}, "temperature must be above 0, not 0.0"),
        ("simclr", {"temperature": -1.0}, "temperature must be above 0, not -1.0"),
        ("supcon", {"temperature": 0.0}, "temperature must be a number above 0, not 0"),
        ("simclr", {"outputs": 0}, "outputs must be at least 1, not 0"),
        ("byol", {"tau": -0.1}, "tau is a share of the weights, 0 to 1, not -0.1"),
        ("byol", {"hidden": 0}, "hidden must be at least 1, not 0"),
    ):
        with pytest.raises(MetarepError, match=text):
            METHODS[name](small_encoder(), **settings)


# normalisation in groups


def test_queries_and_keys_are_normalised_in_other_groups(small_encoder: Make, drawings: Drawings) -> None:
    """Permuting one batch changes no statistic; groups do, and no group of keys is a group of queries."""
    encoder, images = small_encoder().train(), drawings[0].bank.images[:16]
    whole = encoder(images)
    order = torch.randperm(16, generator=Generator().manual_seed(0))
    torch.testing.assert_close(encoder(images[order])[order.argsort()], whole, rtol=1e-4, atol=1e-4)
    blocks, strides = encode_blocks(encoder, images, 4), encode_strides(encoder, images, 4)
    for rows in (blocks, strides):
        assert (rows - whole).abs().max() > 1e-2
    assert (blocks - strides).abs().max() > 1e-2
    assert torch.equal(blocks[4:8], encoder(images[4:8]))
    assert torch.equal(strides[1::4], encoder(images[1::4]))
    for encode in (encode_blocks, encode_strides):
        torch.testing.assert_close(encode(encoder, images, 1), whole)
        assert len(encode(encoder.eval(), images[:7], 4)) == 7
        torch.testing.assert_close(encode(encoder, images[:7], 4), encoder(images[:7]))
        encoder.train()


def test_groups_reach_the_method(small_encoder: Make, drawings: Drawings, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: dict[str, list[int]] = {"queries": [], "keys": []}
    method = make("moco", small_encoder(), norm_groups=2)
    method.learner.encoder.register_forward_pre_hook(lambda _, x: sizes["queries"].append(len(x[0])))
    method.target[0].register_forward_pre_hook(lambda _, x: sizes["keys"].append(len(x[0])))
    method.step(views(drawings[0]), progress=0.0, generator=Generator())
    assert sizes == {"queries": [8, 8], "keys": [8, 8]}


# targets


def test_following_is_the_formula_and_pairs_by_name() -> None:
    online, keep = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)), 0.9
    target = frozen_copy(online)
    assert all(torch.equal(a, b) and a is not b for a, b in zip(online.parameters(), target.parameters(), strict=True))
    with torch.no_grad():
        for parameter in online.parameters():
            parameter += 1
    online(torch.randn(5, 3, generator=Generator().manual_seed(0)))
    before = {name: value.clone() for name, value in target.state_dict().items()}
    trained = copy.deepcopy(online.state_dict())
    follow(target, online, keep)
    for name, value in target.named_parameters():
        torch.testing.assert_close(value, keep * before[name] + (1 - keep) * online.get_parameter(name))
    for name, value in target.named_buffers():
        assert torch.equal(value, before[name]), "statistics belong to the weights they were taken at"
    assert all(torch.equal(trained[name], value) for name, value in online.state_dict().items())
    with pytest.raises(KeyError):
        follow(nn.Linear(3, 4), online, keep)


@pytest.mark.parametrize("name", ["moco", "byol"])
def test_a_target_follows_after_the_step_and_has_no_gradient(
    name: str, drawings: Drawings, small_encoder: Make
) -> None:
    method = make(name, small_encoder())
    start_of = {key: value.clone() for key, value in method.target.named_parameters()}
    online = nn.Sequential(method.learner.encoder, method.projector)
    assert all(torch.equal(value, online.get_parameter(key)) for key, value in start_of.items())
    held = {id(p) for group in method.optimizer(1e-3, 0.1).param_groups for p in group["params"]}
    assert not held & {id(p) for p in method.target.parameters()}
    progress = 0.25
    advance(method, drawings[0], progress=progress)
    keep = 0.9 if name == "moco" else 1 - 0.1 * (math.cos(math.pi * progress) + 1) / 2
    for key, value in method.target.named_parameters():
        assert value.grad is None
        torch.testing.assert_close(value, keep * start_of[key] + (1 - keep) * online.get_parameter(key))
        assert (value - start_of[key]).abs().max() < (online.get_parameter(key) - start_of[key]).abs().max()


def test_evaluating_leaves_a_target_alone(drawings: Drawings, small_encoder: Make) -> None:
    method = make("byol", small_encoder())
    advance(method, drawings[0])
    before = {name: value.clone() for name, value in method.state_dict().items()}
    with torch.no_grad():
        method.eval().learner.embed(drawings[1].bank.images[:20])
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())


# what a step is made of


def test_tau_rises_along_a_cosine_by_steps() -> None:
    steps = 100
    for step in range(steps):
        expected = 1 - (1 - 0.99) * (math.cos(math.pi * step / steps) + 1) / 2
        assert tau_at(0.99, step / steps) == pytest.approx(expected)
        assert tau_at(0.99, step / steps) < 1, "the target is never quite still"
    assert tau_at(0.99, 0.0) == pytest.approx(0.99)
    assert tau_at(0.0, 0.0) == 0.0


def test_byols_loss_is_both_directions_with_the_target_held_fixed(drawings: Drawings, small_encoder: Make) -> None:
    method, batch = make("byol", small_encoder()), views(drawings[0])
    advance(method, drawings[0], 1)
    method.zero_grad()
    twin = copy.deepcopy(method)
    step = method.step(batch, progress=0.0, generator=Generator())
    encode = nn.Sequential(twin.learner.encoder, twin.projector)
    one, two = (twin.predictor(encode(view)) for view in (batch.images, batch.second))
    first, second = (twin.target(view) for view in (batch.images, batch.second))

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return (functional.normalize(a, dim=1) - functional.normalize(b, dim=1)).square().sum(1).mean()

    loss = distance(one, second) + distance(two, first)
    assert step.loss.item() == pytest.approx(loss.item(), rel=1e-5)
    step.loss.backward()
    loss.backward()
    for (name, parameter), other in zip(method.named_parameters(), twin.parameters(), strict=True):
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-5, msg=name)
    assert not any(isinstance(layer, nn.Module) and layer is method.predictor for layer in method.target.modules())
    assert isinstance(method.predictor[1], nn.BatchNorm1d)
    assert isinstance(method.projector[1], nn.BatchNorm1d)


@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 0.5, "norm_groups": 2}, {"symmetric": True, "norm_groups": 1}, {"head": "mlp-norm"}],
    ids=["default", "groups of 8", "symmetric", "mlp-norm"],
)
def test_mocos_loss_is_each_query_against_its_key_and_the_queue(
    settings: dict[str, Any], drawings: Drawings, small_encoder: Make
) -> None:
    """By loops over queries and keys, normalised in the groups that the settings ask for."""
    method, batch = make("moco", small_encoder(), **settings), views(drawings[0])
    advance(method, drawings[0], 1)  # so that the target is another, and the queue partly filled
    twin = copy.deepcopy(method)
    loss = method.step(batch, progress=0.0, generator=Generator()).loss
    groups, temperature = settings.get("norm_groups", 4), settings.get("temperature", 0.2)
    online = nn.Sequential(twin.learner.encoder, twin.projector)
    queue = twin.queue.keys[: int(twin.queue.fill)]
    assert len(queue) == (32 if settings.get("symmetric") else 16)
    losses = []
    pairs = [(batch.images, batch.second), (batch.second, batch.images)]
    for asking, asked in pairs if settings.get("symmetric") else pairs[:1]:
        size = len(asking) // groups
        queries, keys = {}, {}
        for group in range(groups):
            block, stride = list(range(group * size, (group + 1) * size)), list(range(group, len(asked), groups))
            queries |= dict(zip(block, functional.normalize(online(asking[block]), dim=1), strict=True))
            keys |= dict(zip(stride, functional.normalize(twin.target(asked[stride]), dim=1), strict=True))
        for i in range(len(asking)):
            scores = torch.stack([queries[i] @ keys[i], *(queries[i] @ other for other in queue)]) / temperature
            losses.append(scores.logsumexp(0) - scores[0])
    assert loss.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_simclr_normalises_both_views_as_one_batch(temperature: float, drawings: Drawings, small_encoder: Make) -> None:
    method, batch = make("simclr", small_encoder(), temperature=temperature), views(drawings[0])
    projected = method.projector(method.learner.encoder(torch.cat([batch.images, batch.second])))
    loss = method.step(batch, progress=0.0, generator=Generator()).loss
    assert loss.item() == pytest.approx(nt_xent(projected[:16], projected[16:], temperature).item(), rel=1e-5)
    assert torch.equal(method.eval().learner.prepare(batch.images), method.learner.encoder(batch.images)), (
        "features are deployed, not projections"
    )


def test_projectors() -> None:
    with_norm = Projector(6, 3, hidden=5, bias=False)
    assert [type(layer) for layer in with_norm] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert with_norm[0].bias is None
    assert with_norm[3].bias is None
    assert Projector(6, 3, hidden=5, norm=False)[0].bias is not None
    assert [layer.weight.shape for layer in Projector(6, 3, hidden=0)] == [(3, 6)]
