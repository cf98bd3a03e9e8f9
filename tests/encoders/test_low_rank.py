"""Low-rank updates: the start is the plain encoder, merging changes nothing, and only the factors learn."""

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from metarep.cli import main
from metarep.encoders import Preprocess, build_encoder
from metarep.encoders.halves import Halves
from metarep.encoders.low_rank import LowRank, add_low_rank, low_rank_parameters, merge_low_rank
from metarep.errors import MetarepError
from metarep.learners.descent import GradientDescent
from metarep.weights.shipped import load_learner

PHOTO, GREY = Preprocess((32, 32), 3, (0.5,) * 3, (0.5,) * 3), Preprocess((28, 28), 1, (0.0,), (1.0,))
BODIES = [
    ("conv4", GREY, {}),
    ("resnet12", PHOTO, {"width": 8}),
    ("efficientnet-lite", PHOTO, {"mirror": True}),
    ("vit-tiny", GREY, {}),
]


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "preprocess", "settings"), BODIES, ids=[name for name, _, _ in BODIES])
def test_updates_start_at_nothing_and_merge_into_the_same_features(
    name: str, preprocess: Preprocess, settings: dict
) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(name, preprocess, **settings).eval()
    images = torch.randint(0, 256, (3, preprocess.channels, *preprocess.size), dtype=torch.uint8)
    with torch.no_grad():
        plain, names = encoder(images), list(encoder.body.state_dict())
        weights = {key: value.clone() for key, value in encoder.body.state_dict().items()}
        added = add_low_rank(encoder.body, 4)
        assert apart(encoder(images), plain) < 1e-5, "a fused pass rounds otherwise"
        for factor in added:
            factor.add_(0.02 * torch.randn_like(factor))
        moved = encoder(images)
        assert apart(moved, plain) > 1e-2
        merge_low_rank(encoder.body)
        assert apart(encoder(images), moved) < 1e-5
    assert sorted(encoder.body.state_dict()) == sorted(names)
    changed = {key for key, value in encoder.body.state_dict().items() if not value.equal(weights[key])}
    assert len(changed) == len(added) // 2
    build_encoder(name, preprocess, **settings).body.load_state_dict(encoder.body.state_dict())


@pytest.mark.parametrize(("name", "preprocess", "settings"), BODIES, ids=[name for name, _, _ in BODIES])
def test_a_trunk_and_its_tail_are_the_encoder(name: str, preprocess: Preprocess, settings: dict) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(name, preprocess, **settings).eval()
    images = torch.randint(0, 256, (3, preprocess.channels, *preprocess.size), dtype=torch.uint8)
    halves = Halves(encoder)
    with torch.no_grad():
        features = torch.stack([halves.tail(maps) for maps in halves.plain(images)]).mean(0)
        assert apart(features, encoder(images)) < 1e-5
    assert len(halves.trunk)
    own = encoder.body.state_dict()
    assert all(value.equal(own[key]) for key, value in halves.tail.state_dict().items()), "the same names"


@pytest.mark.parametrize(
    "settings",
    [
        {"positions": "rope", "registers": 2, "features": "both"},
        {"features": "attention", "class_token": False, "project": 8, "norm_first": True},
    ],
    ids=["rope", "attention"],
)
def test_a_vision_transformer_has_as_many_blocks_in_its_tail_as_are_allowed(settings: dict) -> None:
    encoder = build_encoder("vit", Preprocess((12, 8), 3, (0.5,) * 3, (0.5,) * 3), depth=5, **settings).eval()
    images = torch.randint(0, 256, (3, 3, 12, 8), dtype=torch.uint8)
    tokens = 6 + (3 if "registers" in settings else 0)
    block = 2 * tokens * 64 * (4 * 64 + 2 * 256) + 4 * tokens**2 * 64  # of four layers and two of the perceptron
    for most, blocks in ((math.inf, 2), (2.1 * block, 2), (1.9 * block, 1), (0, 1)):
        halves = Halves(encoder, most)
        names = {name.split(".")[1] for name in halves.tail.state_dict() if name.startswith("blocks.")}
        assert names == {str(number) for number in range(5 - blocks, 5)}
        with torch.no_grad():
            assert apart(halves.tail(halves.maps(images)), encoder(images)) < 1e-5


def test_only_the_last_layers_of_a_whole_network_get_updates() -> None:
    body = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 8))  # of 32, 64 and 64 weights
    assert len(add_low_rank(body, 1, share=0.6)) == 4
    assert list(body[0].state_dict()) == ["weight", "bias"]


def test_the_update_is_scaled_by_alpha_over_rank() -> None:
    update = LowRank(torch.zeros(2, 3, 1, 1), 4, torch.Generator().manual_seed(0))
    with torch.no_grad():
        update.down.fill_(1.0)
        update.up.fill_(1.0)
    assert update(torch.zeros(2, 3, 1, 1)).flatten().tolist() == [16.0] * 6, "alpha / rank is 4, and the rank adds 4"


@pytest.mark.parametrize(
    ("body", "rank", "says"),
    [(nn.Linear(2, 2), 0, "from 1 to 1,024, not 0"), (nn.Flatten(), 8, "no linear layer or convolution")],
)
def test_what_cannot_be_updated_is_said(body: nn.Module, rank: int, says: str) -> None:
    with pytest.raises(MetarepError, match=says):
        add_low_rank(body, rank)


@pytest.mark.parametrize("order", [1, 2])
def test_inner_steps_of_updates_are_those_of_the_textbook(order: int) -> None:
    torch.manual_seed(0)
    plain = build_encoder("vit-tiny", Preprocess((8, 8), 1, (0.0,), (1.0,)), width=16, depth=1, heads=2).double()
    learner = GradientDescent(plain, scope="lora:2", head="rows", steps=2, inner_lr=0.1, ways=3)
    assert not any("parametrizations" in name for name in plain.body.state_dict()), "the given encoder stays plain"
    body = learner.encoder.body
    for name, weight in body.named_parameters():
        if name.endswith(".up"):
            nn.init.normal_(weight, std=0.1)
    x, y = torch.rand(1, 6, 1, 8, 8, dtype=torch.float64), torch.arange(3).repeat(1, 2)
    q, qy = torch.rand(1, 6, 1, 8, 8, dtype=torch.float64), torch.arange(3).repeat(1, 2)
    learner.double().train()
    loss = learner.task_loss(x, y, q, qy, 3, order=order)
    parts = dict(learner.named_parameters())
    ours = torch.autograd.grad(loss, list(parts.values()), allow_unused=True)

    own = {f"body.{name}": weight for name, weight in body.named_parameters()}
    now = own | dict(zip(("weight", "bias"), learner.head.parameters(), strict=True))

    def logits(weights: Mapping[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
        of_body = {name.removeprefix("body."): each for name, each in weights.items() if name.startswith("body.")}
        with sdpa_kernel(SDPBackend.MATH):  # the fused ones cannot be differentiated twice
            features = torch.func.functional_call(body, of_body, (learner.encoder.preprocess(images),))
        return features @ weights["weight"].mT + weights["bias"]

    moved = [name for name in now if name.endswith((".up", ".down")) or name in ("weight", "bias")]
    for _ in range(2):
        inner = nn.functional.cross_entropy(logits(now, x[0]), y[0])
        steps = torch.autograd.grad(inner, [now[name] for name in moved], create_graph=True)
        steps = [step if order == 2 else step.detach() for step in steps]
        now = now | {name: now[name] - 0.1 * step for name, step in zip(moved, steps, strict=True)}
    textbook = nn.functional.cross_entropy(logits(now, q[0]), qy[0])
    assert loss.item() == pytest.approx(textbook.item(), abs=1e-12)
    theirs = torch.autograd.grad(textbook, list(parts.values()), allow_unused=True)
    for name, one, other in zip(parts, ours, theirs, strict=True):
        if one is not None or other is not None:
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10, msg=name)


@pytest.mark.parametrize("scope", ["lora", "lora:0", "lora:x", "lora:9999"])
def test_a_scope_without_a_rank_is_refused(scope: str) -> None:
    with pytest.raises(MetarepError, match="needs a rank from 1 to 1,024, as in lora:8"):
        GradientDescent(build_encoder("conv4", GREY), scope=scope)


@pytest.mark.slow
def test_a_run_with_updates_is_read_again_and_is_a_plain_start_for_another(tmp_path: Path) -> None:
    short = ["--data", "glyphs", "--steps", "2", "--tasks", "2", "--width", "8", "--validation-tasks", "2"]
    for method in ("maml", "reptile"):
        out = str(tmp_path / method)
        assert main(["train", method, *short, "--scope", "lora:4", "--out", out]) == 0
        learner = load_learner(out)
        assert len(low_rank_parameters(learner.encoder.body)) == 8
    init = str(tmp_path / "maml")
    assert main(["train", "protonet", *short, "--init", init, "--out", str(tmp_path / "next")]) == 0
    assert "0.0.weight" in load_learner(tmp_path / "next").encoder.body.state_dict()
