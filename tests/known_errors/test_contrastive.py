"""Known errors of contrastive libraries (SimCLR, MoCo, BYOL), each as a test against this one."""

import math
from collections.abc import Callable

import pytest
import torch
from contrasting import VIEWS, advance, make, views, wide
from torch import Generator, Tensor, nn
from torch.nn import functional

from metarep.data.augment.presets import PRESETS
from metarep.data.batch import Batch
from metarep.data.split import Split
from metarep.encoders import Encoder
from metarep.machine import ranks
from metarep.methods import BYOL
from metarep.methods.contrastive import COLLAPSED, KeyQueue, encode_blocks, encode_strides, follow, nt_xent, spread

Drawings = tuple[Split, Split]
Make = Callable[..., Encoder]
CONTRASTIVE = [*VIEWS, "supcon"]


# SimCLR


def test_a_views_similarity_with_itself_is_zero_or_counts() -> None:
    first, second = wide(64, 32), wide(64, 32, 1)
    rows = functional.normalize(torch.cat([first, second]), dim=-1)
    logits, partner = rows @ rows.T / 0.5, torch.arange(128).roll(64)
    correct = functional.cross_entropy(logits.clone().fill_diagonal_(-math.inf), partner).item()
    assert nt_xent(first, second, 0.5).item() == pytest.approx(correct, rel=1e-12)
    for wrong in (logits, logits.clone().fill_diagonal_(0)):
        assert abs(functional.cross_entropy(wrong, partner).item() - correct) > 1e-3


@pytest.mark.parametrize("n", [2, 7, 33])
def test_partners_are_looked_up_in_another_layout_or_by_the_size_in_the_settings(n: int) -> None:
    axes = torch.eye(n, dtype=torch.float64)
    lowest = math.log(math.exp(1 / 0.3) + 2 * n - 2) - 1 / 0.3
    assert nt_xent(axes, axes, 0.3).item() == pytest.approx(lowest), "views agree, and images differ"
    assert nt_xent(axes, axes.roll(1, 0), 0.3) > lowest + 1


def test_exponentials_overflow_in_half_precision() -> None:
    half = torch.eye(8, dtype=torch.bfloat16)
    loss = nt_xent(half, half, 0.005)
    assert (loss.dtype, bool(loss.isfinite())) == (torch.float32, True)


def test_gathered_features_have_no_gradient_or_that_of_another_world_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks, of which each computes the loss of all rows; their gradients are averaged."""
    rows, weight = wide(8, 5), wide(5, 3, 1).requires_grad_()
    halves, sent = [rows[:4], rows[4:]], []

    monkeypatch.setattr(ranks, "ranks", lambda: 2)
    monkeypatch.setattr(ranks, "all_of", lambda _: [half @ weight.detach() for half in halves])
    monkeypatch.setattr(ranks, "add_all", lambda above: above.mul_(2))  # the other rank's is the same
    for rank in range(2):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        whole = ranks.gather_rows(halves[rank] @ weight, 8)
        sent.append(torch.autograd.grad(nt_xent(*_halves(whole), 0.2), weight)[0])
    (alone,) = torch.autograd.grad(nt_xent(*_halves(rows @ weight), 0.2), weight)
    torch.testing.assert_close((sent[0] + sent[1]) / 2, alone, rtol=1e-12, atol=1e-12)


def _halves(rows: Tensor) -> tuple[Tensor, Tensor]:
    return rows[::2], rows[1::2]


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_projections_are_deployed_and_not_features(name: str, small_encoder: Make, drawings: Drawings) -> None:
    method, images = make(name, small_encoder()), drawings[1].bank.images[:8]
    method.eval()
    assert torch.equal(method.learner.prepare(images), method.learner.encoder(images))
    assert not any("project" in key or "queue" in key for key in method.learner.state_dict())


# MoCo


def test_queries_and_keys_share_their_batch_statistics(small_encoder: Make, drawings: Drawings) -> None:
    encoder, images = small_encoder().train(), drawings[0].bank.images[:16]
    assert (encode_blocks(encoder, images, 4) - encode_strides(encoder, images, 4)).abs().max() > 1e-2


def test_keys_are_queued_before_the_loss_or_its_gradient(
    small_encoder: Make, drawings: Drawings, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = make("moco", small_encoder())
    advance(method, drawings[0], 1)
    before = method.queue.keys.clone()
    step = method.step(views(drawings[0]), progress=0.0, generator=Generator())
    assert torch.equal(method.queue.keys, before), "its own keys are not among its negatives"
    step.loss.backward()
    method.after_step(step.carry, 0.0)
    assert torch.equal(method.queue.keys[16:32], step.carry)
    monkeypatch.setattr(Batch, "whole", lambda _, own: torch.cat([own, own]))
    more = method.step(views(drawings[0]), progress=0.0, generator=Generator())
    assert len(more.carry) == 32, "keys of all processes are queued, so that no two queues differ"


def test_keys_at_the_end_of_the_ring_are_lost() -> None:
    queue, keys = KeyQueue(10, 3), torch.randn(12, 3, generator=Generator().manual_seed(0))
    for part in keys.split(4):
        queue.enqueue(part)
    assert torch.equal(queue.keys[[*range(2, 10), 0, 1]], keys[2:])
    assert queue.pointer.item() == 2


def test_noise_stays_among_the_negatives_and_the_pointer_is_not_saved() -> None:
    queue = KeyQueue(10, 3)
    queue.enqueue(torch.eye(3))
    assert queue.valid.tolist() == [True] * 3 + [False] * 7
    assert set(queue.state_dict()) == {"keys", "pointer", "fill"}
    assert all(isinstance(part, Tensor) for part in (queue.pointer, queue.fill)), "on the device, never read in a step"


# BYOL


def test_the_target_is_trained_or_has_the_predictor(small_encoder: Make) -> None:
    method = make("byol", small_encoder())
    online = nn.Sequential(method.learner.encoder, method.projector)
    assert all(torch.equal(value, online.get_parameter(name)) for name, value in method.target.named_parameters())
    assert not any(parameter.requires_grad for parameter in method.target.parameters())
    held = {id(p) for group in method.optimizer(0.1, 0.1).param_groups for p in group["params"]}
    assert not held & {id(p) for p in method.target.parameters()}
    assert held >= {id(p) for p in method.predictor.parameters()}


def test_the_moving_average_goes_the_other_way_or_pairs_by_position() -> None:
    online, target = nn.Linear(2, 2), nn.Linear(2, 2)
    start_of, kept = target.weight.detach().clone(), online.weight.detach().clone()
    follow(target, online, 0.9)
    torch.testing.assert_close(target.weight, 0.9 * start_of + 0.1 * kept)
    assert torch.equal(online.weight, kept)
    with pytest.raises(KeyError):
        follow(nn.Sequential(nn.Linear(2, 2)), online, 0.9)


def test_statistics_of_the_online_network_become_those_of_the_target(small_encoder: Make, drawings: Drawings) -> None:
    method = make("byol", small_encoder())
    advance(method, drawings[0])
    before = {name: value.clone() for name, value in method.target.named_buffers()}
    method.eval().learner.embed(drawings[1].bank.images[:20])
    method.after_step(None, 0.5)
    assert all(torch.equal(value, before[name]) for name, value in method.target.named_buffers())


def test_a_collapse_goes_unnoticed(small_encoder: Make, drawings: Drawings) -> None:
    point = torch.ones(64, 8) + 1e-4 * torch.randn(64, 8, generator=Generator().manual_seed(0))
    assert spread(point) < COLLAPSED < spread(torch.randn(64, 8, generator=Generator().manual_seed(0)))
    assert all("spread" in advance(make(name, small_encoder()), drawings[0]).logs for name in VIEWS)
    for network in (make("byol", small_encoder()).projector, BYOL(small_encoder()).predictor):
        assert any(isinstance(layer, nn.BatchNorm1d) for layer in network), "the norm that keeps it from collapsing"


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if preset])
def test_a_whole_batch_is_augmented_by_one_draw(name: str) -> None:
    image = torch.randint(0, 256, (1, 3, 24, 24), dtype=torch.uint8, generator=Generator().manual_seed(0))
    made = PRESETS[name]
    assert made is not None
    out = made(image.expand(32, -1, -1, -1), Generator().manual_seed(0))
    assert len(out.flatten(1).unique(dim=0)) == 32
