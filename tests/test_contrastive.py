"""Learning from views: each formula against loops, what is state, what labels are never asked, what collapses."""

import copy
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from metarep.augment import preset
from metarep.batches import ViewBatch, draw_batch
from metarep.checkpoint import load_checkpoint, read_tensors
from metarep.contrastive import (
    COLLAPSED,
    KeyQueue,
    Projector,
    effective_rank,
    encode_blocks,
    encode_strides,
    follow,
    frozen_copy,
    info_nce,
    negative_cosine,
    nt_xent,
    spread,
)
from metarep.datasets.split import Split
from metarep.encoders import Encoder
from metarep.errors import DataError, MetarepError
from metarep.evaluation import evaluate
from metarep.job import Job, build, start
from metarep.labels import Labels
from metarep.measure import result_row
from metarep.methods import BYOL, METHODS, Method, MoCo, SimCLR
from metarep.methods.byol import tau_at
from metarep.progress import _figures
from metarep.run import RunFolder
from metarep.settings import TrainSettings
from metarep.tasks import draw_tasks
from metarep.training import CollapsedError, CollapseWarning, train

Drawings = tuple[Split, Split]
Make = Callable[..., Encoder]
LOOP = sys.modules[train.__module__]
VIEWS = {name: kind for name, kind in METHODS.items() if kind.eats is ViewBatch}
SMALL: dict[str, Any] = {
    "steps": 6, "images": 16, "augment": "views-drawings", "validate_every": 2, "validation_tasks": 10,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "simclr": {"hidden": 16, "outputs": 8},
    "moco": {"hidden": 16, "outputs": 8, "queue": 40, "momentum": 0.9},
    "byol": {"hidden": 16, "outputs": 8, "tau": 0.9},
}


def wide(n: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=Generator().manual_seed(seed), dtype=torch.float64)


def make(name: str, encoder: Encoder, **settings: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return METHODS[name](encoder, **OWN[name], **settings).train()


def views(split: Split, n: int = 16, seed: int = 0, **how: Any) -> Any:
    shape = TrainSettings(images=n).shape
    augment = how.get("augment", preset("views-drawings"))
    return draw_batch(
        ViewBatch, split.bank, how.get("labels", split.labels), shape, augment, Generator().manual_seed(seed)
    )


def advance(method: Any, split: Split, seed: int = 0, progress: float = 0.0) -> Any:
    """One whole step of training; gives what the method's step gave."""
    step = method.step(views(split, seed=seed), progress=progress, generator=Generator())
    method.zero_grad()
    step.loss.backward()
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    method.after_step(step.carry, progress)
    return step


# losses


def slow_nt_xent(first: Tensor, second: Tensor, temperature: float) -> float:
    """Algorithm 1 of the paper, one pair at a time."""
    rows = [
        row for pair in zip(first.tolist(), second.tolist(), strict=True) for row in pair
    ]  # 2k, 2k + 1 are partners

    def cosine(a: list[float], b: list[float]) -> float:
        length = math.sqrt(sum(x * x for x in a) * sum(x * x for x in b))
        return sum(x * y for x, y in zip(a, b, strict=True)) / length

    total = 0.0
    for i, row in enumerate(rows):
        partner = i + 1 if i % 2 == 0 else i - 1
        below = sum(math.exp(cosine(row, other) / temperature) for k, other in enumerate(rows) if k != i)
        total += -math.log(math.exp(cosine(row, rows[partner]) / temperature) / below)
    return total / len(rows)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("correlated", [False, True])
def test_nt_xent_is_the_papers_algorithm(temperature: float, correlated: bool) -> None:
    first = wide(7, 5)
    second = first + 0.2 * wide(7, 5, 1) if correlated else wide(7, 5, 1)
    expected = slow_nt_xent(first, second, temperature)
    assert nt_xent(first, second, temperature).item() == pytest.approx(expected, rel=1e-12)
    assert nt_xent(3 * first, second, temperature).item() == pytest.approx(expected, rel=1e-12), "length is no matter"


def test_the_masks_that_look_right_are_told_apart() -> None:
    """A self-similarity of zero, or of one, gives a loss near the true one; both must be outside the tolerance."""
    first, second = wide(64, 32), wide(64, 32, 1)
    rows = functional.normalize(torch.cat([first, second]), dim=-1)
    partner = torch.arange(128).roll(64)
    logits = rows @ rows.T / 0.5
    wrong = [functional.cross_entropy(each, partner).item() for each in (logits, logits.clone().fill_diagonal_(0))]
    loss = nt_xent(first, second, 0.5).item()
    assert all(1e-3 < abs(loss - each) < 0.1 for each in wrong)
    assert loss == pytest.approx(math.log(127), abs=0.2), "unrelated views know nothing"


def test_nt_xent_reaches_its_minimum_where_views_agree_and_images_differ() -> None:
    axes = torch.eye(6, dtype=torch.float64)
    lowest = math.log(math.exp(1 / 0.3) + 10) - 1 / 0.3
    assert nt_xent(axes, axes, 0.3).item() == pytest.approx(lowest)
    assert nt_xent(axes, axes.roll(1, 0), 0.3) > lowest + 1
    assert nt_xent(torch.eye(64), torch.eye(64), 0.001).isfinite(), "no exponential without its largest subtracted"


@pytest.mark.parametrize("chunk", [1, 3, 8, 14, 15])
def test_chunks_give_the_same_value_and_gradient(chunk: int) -> None:
    results = []
    for size in (100, chunk):
        first, second = wide(7, 4).requires_grad_(), wide(7, 4, 1).requires_grad_()
        loss = nt_xent(first, second, 0.2, chunk=size)
        results.append((loss, *torch.autograd.grad(loss, (first, second))))
    for whole, part in zip(*results, strict=True):
        torch.testing.assert_close(part, whole, rtol=1e-12, atol=1e-12)


def test_gradients_of_the_losses() -> None:
    first, second, others = wide(4, 3).requires_grad_(), wide(4, 3, 1).requires_grad_(), wide(5, 3, 2)
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.3), (first, second))
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.3, chunk=3), (first, second))
    valid = torch.tensor([True, False, True, True, False])
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a, b, others, 0.3, valid), (first, second))
    assert torch.autograd.gradcheck(negative_cosine, (first, second))


def test_info_nce_by_loops() -> None:
    queries, keys, others = (functional.normalize(wide(n, 6, n), dim=-1) for n in (4, 4, 9))
    keys = functional.normalize(queries + 0.3 * keys, dim=-1)
    valid = torch.arange(9) < 5
    for mask, count in ((None, 9), (valid, 5)):
        expected = 0.0
        for query, key in zip(queries, keys, strict=True):
            top = math.exp(query @ key / 0.2)
            expected -= math.log(top / (top + sum(math.exp(query @ other / 0.2) for other in others[:count]))) / 4
        assert info_nce(queries, keys, others, 0.2, mask).item() == pytest.approx(expected, rel=1e-12)


def test_negative_cosine_is_a_squared_distance_on_the_sphere() -> None:
    a, b = wide(5, 4), wide(5, 4, 1)
    far = (a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)).square().sum(1).mean()
    assert negative_cosine(a, b).item() == pytest.approx(far.item())
    assert negative_cosine(a, 3 * a).item() == pytest.approx(0, abs=1e-12)


def test_losses_are_computed_in_float32_at_least() -> None:
    half = torch.randn(32, 16, generator=Generator().manual_seed(0)).bfloat16()
    for loss in (nt_xent(half, half.roll(1, 0), 0.01), info_nce(half, half, half, 0.07), negative_cosine(half, half)):
        assert loss.dtype == torch.float32
        assert loss.isfinite()


# views


class Sealed(Labels):
    """Labels that nobody may look at."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return super().__getattribute__(name)
        raise AssertionError(f"the labels were read: {name}")


def sealed() -> Labels:
    return object.__new__(Sealed)


def test_drawing_views_reads_no_label(drawings: Drawings) -> None:
    with pytest.raises(AssertionError, match="the labels were read"):
        len(sealed().names)
    assert views(drawings[0], labels=sealed()).digest == views(drawings[0]).digest


@pytest.mark.parametrize("name", VIEWS)
def test_a_whole_training_reads_no_label(name: str, drawings: Drawings, small_encoder: Make, tmp_path: Path) -> None:
    split, settings = drawings[0]._replace(labels=sealed()), TrainSettings(**SMALL)
    run = RunFolder(tmp_path, {"train": settings.as_dict(), "method": name, "settings": OWN[name]}, [])
    outcome = train(make(name, small_encoder()), split, settings, run=run)
    assert (outcome.step, outcome.accuracy) == (6, None)
    assert load_checkpoint(run.model).method.state_dict().keys() == make(name, small_encoder()).state_dict().keys()


@pytest.mark.parametrize("name", VIEWS)
def test_a_job_reads_the_names_of_classes_but_not_who_is_in_them(
    name: str, drawings: Drawings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names say what must not be evaluated on; nothing else is known of the training images."""

    class Named(Labels):
        def __getattribute__(self, attribute: str) -> Any:
            assert attribute not in ("classes", "counts", "rows", "starts", "groups", "digest"), "the labels were read"
            return super().__getattribute__(attribute)

    hidden = object.__new__(Named)
    for field in ("names", "keys"):
        object.__setattr__(hidden, field, getattr(drawings[0].labels, field))
    found = {"train": drawings[0]._replace(labels=hidden), "val": drawings[1]}
    monkeypatch.setattr("metarep.job.load", lambda data, part, **_: found[part])
    train_settings = {**SMALL, "augment": "drawings"}
    job = Job(name, OWN[name], train_settings, encoder={"name": "conv4", "width": 8})
    start(job, tmp_path, precision="float32")
    trained = load_checkpoint(tmp_path / "model.safetensors")
    assert trained.labels == "none"
    assert len(trained.seen) == 80


def test_views_are_two_draws_for_every_image(drawings: Drawings) -> None:
    """Of identical images too: a library's transforms draw once for a batch."""
    same = Split(type(drawings[0].bank)(drawings[0].bank.images[:1].expand(40, -1, -1, -1)), drawings[0].labels, "same")
    batch = views(same, 40)
    both = torch.cat([batch.images, batch.second]).flatten(1)
    assert len(both.unique(dim=0)) == 80
    assert batch.rows.sort().values.tolist() == list(range(40))


def test_rows_are_drawn_evenly_and_views_are_of_their_rows(drawings: Drawings) -> None:
    split = drawings[0]
    drawn = torch.cat([views(split, 40, seed).rows for seed in range(100)])
    counts = drawn.bincount(minlength=800)  # 4000 draws of 800 images: 5 each, with a deviation of 2.2
    assert 3.5 < counts.float().var() < 6.5
    batch, light = views(split, 200), split.bank.images.float().mean((1, 2, 3)) / 255
    for seen in (batch.images, batch.second):
        got = torch.corrcoef(torch.stack([seen.mean((1, 2, 3)), light[batch.rows]]))[0, 1]
        assert got > 0.5, "a view shows the image of its row"


def test_views_that_cannot_be_drawn(drawings: Drawings) -> None:
    with pytest.raises(MetarepError, match=r"the same without augmentation.*set augment to views-drawings"):
        views(drawings[0], augment=None)
    with pytest.raises(DataError, match="a batch of 801 different images needs a data set of as many, not 800"):
        views(drawings[0], 801)
    with pytest.raises(MetarepError, match="images must be at least 2, not 1"):
        TrainSettings(images=1)


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


def test_a_queue_of_the_settings_and_nothing_impossible(small_encoder: Make) -> None:
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


def test_simclr_normalises_both_views_as_one_batch(drawings: Drawings, small_encoder: Make) -> None:
    method, batch = make("simclr", small_encoder()), views(drawings[0])
    projected = method.projector(method.learner.encoder(torch.cat([batch.images, batch.second])))
    loss = method.step(batch, progress=0.0, generator=Generator()).loss
    assert loss.item() == pytest.approx(nt_xent(projected[:16], projected[16:], 0.1).item(), rel=1e-5)
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


# collapse


def test_the_gauge_tells_a_point_a_line_and_a_sphere_apart() -> None:
    sphere = torch.randn(4000, 16, generator=Generator().manual_seed(0))
    point = torch.ones(4000, 16) + 1e-4 * sphere
    line = torch.outer(sphere[:, 0], torch.ones(16))
    assert spread(sphere).item() == pytest.approx(1, abs=0.01)
    assert spread(point) < 0.001 < COLLAPSED
    assert spread(torch.ones(8, 4)) == 0
    assert spread(torch.zeros(8, 4)) == 0
    assert effective_rank(sphere).item() == pytest.approx(16, abs=0.2)
    assert effective_rank(line).item() == pytest.approx(1, abs=1e-4)
    assert effective_rank(torch.ones(8, 4)) == 0
    assert spread(1000 * sphere) == pytest.approx(spread(sphere).item())
    few = sphere[:10]  # fewer rows than dimensions: the other product of matrices
    unit = functional.normalize(few.double(), dim=1)
    covariance = torch.cov(unit.T, correction=0)
    values = torch.linalg.eigvalsh(covariance)
    assert effective_rank(few).item() == pytest.approx((values.sum() ** 2 / values.square().sum()).item(), rel=1e-4)
    assert spread(few).item() == pytest.approx(values.sum().sqrt().item(), rel=1e-5)


@pytest.mark.parametrize("name", VIEWS)
def test_every_step_says_how_spread_features_are(name: str, drawings: Drawings, small_encoder: Make) -> None:
    logs = make(name, small_encoder()).step(views(drawings[0]), progress=0.0, generator=Generator()).logs
    assert set(logs) == {"spread", "rank"}
    assert COLLAPSED < logs["spread"] < 1.01
    assert 1 < logs["rank"] < 16
    assert "spread 0.50  rank 3.2" in _figures({"loss": 1.0, "spread": 0.5, "rank": 3.21})


class Collapsing(SimCLR):
    """Its projector forgets everything after a few steps."""

    def after_step(self, carry: Any, progress: float) -> None:
        if progress >= 0.3:
            with torch.no_grad():
                self.projector[-1].weight.zero_()


def test_a_collapse_is_said_once_and_stops_on_request(
    drawings: Drawings, small_encoder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOOP, "LOG_EVERY", 1)
    said = r"collapsed to one point at step 4: .* 0\.0\d\d of 1.*--stop-on-collapse"
    with pytest.warns(CollapseWarning, match=said) as told:
        train(Collapsing(small_encoder(), hidden=16, outputs=8), drawings[0], TrainSettings(**SMALL))
    assert len(told) == 1
    settings, steps = TrainSettings(**SMALL, stop_on_collapse=True), []
    run = RunFolder(tmp_path, {"train": settings.as_dict(), "method": "simclr", "settings": {}}, [])
    with pytest.raises(CollapsedError, match=r"at step 4: .*last good state is in"):
        train(
            Collapsing(small_encoder(), hidden=16, outputs=8), drawings[0], settings,
            run=run, watch=lambda record: steps.append(record["step"]),
        )  # fmt: skip
    assert steps == [1, 2, 3, 4]
    assert read_tensors(tmp_path / "state.safetensors")[1]["step"] == 2


# training


class PulledError(Exception):
    """The plug."""


@pytest.mark.parametrize("name", VIEWS)
def test_a_resumed_training_is_the_uninterrupted_one(
    name: str, drawings: Drawings, small_encoder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With queue, pointer, fill and target: bit for bit."""
    monkeypatch.setattr(LOOP, "LOG_EVERY", 1)
    settings = TrainSettings(**SMALL)
    about = {"train": settings.as_dict(), "method": name, "settings": OWN[name]}

    def go(path: Path, watch: Any = None) -> tuple[Method, Any]:
        method = make(name, small_encoder())
        return method, train(
            method, drawings[0], settings, validation=drawings[1], run=RunFolder(path, about, []), watch=watch
        )

    def pull(record: dict[str, Any]) -> None:
        if record["step"] in (3, 5) and record["step"] not in pulled:
            pulled.append(record["step"])
            raise PulledError

    pulled: list[int] = []
    whole, outcome = go(tmp_path / "whole")
    for _ in range(2):
        with pytest.raises(PulledError):
            go(tmp_path / "pieces", pull)
    pieces, again = go(tmp_path / "pieces", pull)
    assert pulled == [3, 5]
    assert (outcome.step, outcome.accuracy) == (again.step, again.accuracy)
    first, second = whole.state_dict(), pieces.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    saved, _ = read_tensors(tmp_path / "pieces" / "state.safetensors")
    assert all(torch.equal(saved[f"method.{key}"], first[key]) for key in first)
    if name == "moco":
        assert (first["queue.fill"], first["queue.pointer"]) == (40, 6 * 16 % 40)


def test_validation_labels_do_not_choose_for_a_method_without(
    drawings: Drawings, small_encoder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([90.0, 80.0, 70.0])

    def falling(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(accuracy=next(answers), ci95=1.0)

    monkeypatch.setattr(LOOP, "evaluate", falling)
    settings = TrainSettings(**SMALL)
    run = RunFolder(tmp_path, {"train": settings.as_dict(), "method": "simclr", "settings": OWN["simclr"]}, [])
    method = make("simclr", small_encoder())
    outcome = train(method, drawings[0], settings, validation=drawings[1], run=run)
    assert (outcome.step, outcome.accuracy) == (6, 70.0)
    tensors, _ = read_tensors(tmp_path / "state.safetensors")
    kept, model = method.state_dict(), load_checkpoint(run.model).method.state_dict()
    for name, value in kept.items():
        assert torch.equal(value, tensors[f"method.{name}"])
        assert torch.equal(value, model[name])
    assert [record["accuracy"] for record in run.records() if "accuracy" in record] == [90.0, 80.0, 70.0]


# jobs, and starting from another run


def narrow(method: str, **more: Any) -> Job:
    common = {"steps": 2, "validate_every": 2, "validation_tasks": 10}
    shape = {"images": 16} if method in VIEWS else {"ways": 6, "shots": 2, "queries": 2}
    encoder = more.pop("encoder", {"name": "conv4", "width": 8})
    return Job(method, OWN.get(method, {}), {**common, **shape, **more.pop("train", {})}, encoder=encoder, **more)


def test_the_preset_and_the_batch_suit_the_images(drawings: Drawings) -> None:
    def chosen(method: str, side: int, channels: int) -> str:
        images = torch.zeros(60, channels, side, side, dtype=torch.uint8)
        split = Split(type(drawings[0].bank)(images), Labels.of([i // 20 for i in range(60)]), "photos")
        _, settings = build(Job(method, encoder={"name": "conv4", "width": 4}), split)
        assert settings.images == (60 if method in VIEWS else 256)
        return settings.augment

    assert build(Job("simclr"), drawings[0])[1].augment == "views-drawings"
    assert build(Job("protonet"), drawings[0])[1].augment == "drawings"
    assert [chosen(name, 32, 3) for name in VIEWS] == ["views-32"] * 3
    assert [chosen(name, 84, 3) for name in VIEWS] == ["few-shot-84"] * 3
    assert chosen("protonet", 84, 3) == "photos"


@pytest.fixture
def data(drawings: Drawings, monkeypatch: pytest.MonkeyPatch) -> dict[str, Split]:
    found = {"train": drawings[0], "val": drawings[1]}
    monkeypatch.setattr("metarep.job.load", lambda data, part, **_: found[part])
    return found


@pytest.mark.parametrize(("first", "then"), [("simclr", "protonet"), ("protonet", "byol"), ("byol", "moco")])
def test_a_run_starts_from_another_of_any_method(first: str, then: str, data: dict[str, Split], tmp_path: Path) -> None:
    start(narrow(first), tmp_path / "first", precision="float32")
    initial = load_checkpoint(tmp_path / "first" / "model.safetensors")
    data["train"], other = data["val"], data["train"]
    job = narrow(then, init=str(tmp_path / "first"), train={"lr": 1e-30})  # so that it stays where it starts
    start(job, tmp_path / "then", precision="float32")
    trained = load_checkpoint(tmp_path / "then" / "model.safetensors")
    weights = dict(initial.learner.encoder.named_parameters())
    for name, value in trained.learner.encoder.named_parameters():
        torch.testing.assert_close(value, weights[name])
    if isinstance(trained.method, MoCo | BYOL):
        for name, value in trained.method.target[0].named_parameters():
            torch.testing.assert_close(value, weights[name])
    assert trained.seen >= initial.seen
    assert len(trained.seen) == 80
    assert other.labels.keys[0] not in data["train"].labels.keys
    with pytest.raises(MetarepError, match="were seen in training"):
        trained.refuse_seen(other.labels, "train")
    tasks = draw_tasks(other.labels, 2, ways=2, shots=1, queries=1, generator=Generator())
    report = evaluate(trained.learner, other.bank, tasks, split="drawings/train")
    row = result_row(trained, "trained", report, "path")
    assert row["init"] == "first"
    assert row["labels"] == ("none" if {first, then} <= set(VIEWS) else "true")
    assert result_row(trained, "untrained encoder", report, "path")["init"] == "random"
    assert json.loads((tmp_path / "then" / "settings.json").read_text())["init"] == "first"
    with pytest.raises(MetarepError, match="init = 'first', not None"):
        start(narrow(then, train={"lr": 1e-30}), tmp_path / "then", precision="float32")


def test_a_start_that_does_not_fit_is_refused(data: dict[str, Split], tmp_path: Path) -> None:
    start(narrow("simclr"), tmp_path / "first", precision="float32")
    init = str(tmp_path / "first")
    with pytest.raises(MetarepError, match=r"has the encoder .*'width': 8.* and this training .*'width': 16.*--width"):
        start(narrow("protonet", init=init, encoder={"name": "conv4", "width": 16}), tmp_path / "a")
    small = type(data["train"].bank)(data["train"].bank.images[..., :16, :16])
    data["train"] = data["train"]._replace(bank=small)
    with pytest.raises(MetarepError, match=r"trained on images with size \(20, 20\), and these have \(16, 16\)"):
        start(narrow("protonet", init=init), tmp_path / "b")
    dark = type(small)(255 - data["val"].bank.images)
    data["train"] = data["train"]._replace(bank=dark)
    with pytest.raises(MetarepError, match="trained on images with invert True, and these have False"):
        start(narrow("protonet", init=init), tmp_path / "c")
    with pytest.raises(MetarepError, match="unknown model or run folder"):
        start(narrow("protonet", init="nowhere"), tmp_path / "d")


def test_a_run_older_than_a_setting_is_still_the_same_run(tmp_path: Path) -> None:
    settings = TrainSettings(**SMALL).as_dict()
    RunFolder(tmp_path, {"train": {name: value for name, value in settings.items() if name != "stop_on_collapse"}}, [])
    RunFolder(tmp_path, {"train": settings}, [])
    with pytest.raises(MetarepError, match=r"train.stop_on_collapse = False, not True"):
        RunFolder(tmp_path, {"train": settings | {"stop_on_collapse": True}}, [])
