"""Methods: one contract for all that are in METHODS, and for their main variants."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Generator, Tensor

from metarep.data.augment import preset
from metarep.data.batch import Batch, BatchShape, LabelledBatch, LabelledViewBatch, TaskBatch, ViewBatch, Views
from metarep.data.batches import draw_batch
from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.data.tasks import draw_tasks
from metarep.encoders import Encoder
from metarep.errors import MetarepError
from metarep.experiments.job import Job, own_settings, train_settings
from metarep.experiments.measurement.evaluation import evaluate
from metarep.experiments.training import train
from metarep.learners import Prototypes
from metarep.methods import METHODS, Baseline, Method, build_method
from metarep.methods.losses import pair_loss, triplet_loss
from metarep.methods.pairs import same_class
from metarep.weights.checkpoint import load_checkpoint, save_checkpoint
from metarep.weights.record import RunRecord
from metarep.weights.settings import TrainSettings

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in METHODS},
    "reptile": ("reptile", {"inner_lr": 5e-3, "test_steps": 5}),  # at the paper's rate it needs thousands of steps
    "protonet, cosine, turned": ("protonet", {"metric": "cosine", "temperature": 0.1, "turns": 3}),
    "maml, first order, all but norms": ("maml", {"order": 1, "scope": "all-but-norms", "inner_steps": 2}),
    "maml, prototype head, learned rates": ("maml", {"head": "prototype", "rates": "parameter", "inner_lr": 0.05}),
    "anil, any ways": ("anil", {"head": "prototype", "learned_rates": True, "inner_lr": 0.01, "turns": 2}),
    "baseline, linear": ("baseline", {"head": "linear", "smoothing": 0.1, "classes": 40}),
    "siamese, koch": ("siamese", {"loss": "koch"}),
    "siamese, active negatives, as is": ("siamese", {"negatives": "active", "normalise": False, "margin": 3.0}),
    "triplet, batch-all": ("triplet", {"mining": "batch-all", "squared": True}),
    "supcon, linear projector": ("supcon", {"temperature": 0.2, "hidden": 0, "outputs": 16}),
    "simclr, linear projector": ("simclr", {"temperature": 0.2, "hidden": 0, "outputs": 16}),
    # at the default momentum it needs hundreds of steps
    "moco": ("moco", {"momentum": 0.9, "queue": 400, "temperature": 0.1, "head": "mlp-norm"}),
    "moco, first version, symmetric": (
        "moco",
        {"head": "linear", "temperature": 0.07, "symmetric": True, "norm_groups": 1, "queue": 200, "momentum": 0.8},
    ),
    "byol": ("byol", {"tau": 0.5}),
    "triplet, soft batch-hard": ("triplet", {"mining": "batch-hard", "margin": None, "normalise": False}),
}
SHAPES: dict[type[Batch], dict[str, int]] = {
    LabelledBatch: {"ways": 20, "shots": 4},
    TaskBatch: {"ways": 20, "shots": 1, "queries": 4},
    ViewBatch: {"images": 80},
    LabelledViewBatch: {"ways": 20, "shots": 2},
}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]
METRIC = ("protonet", "siamese", "triplet", "baseline")
Drawings = tuple[Split, Split]


@dataclass(frozen=True)
class Variant:
    """A method's name and settings; called, it builds the method on a small encoder."""

    name: str
    settings: dict[str, Any]
    small_encoder: Callable[..., Encoder]

    def __call__(self, encoder: str = "conv4", seed: int = 0) -> Method:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # heads start at random
            return build_method(self.name, self.small_encoder(encoder, seed), self.settings)


@pytest.fixture(params=[pytest.param(key, marks=pytest.mark.slow if "," in key else ()) for key in VARIANTS])
def variant(request: pytest.FixtureRequest, small_encoder: Callable[..., Encoder]) -> Variant:
    return Variant(*VARIANTS[request.param], small_encoder)


def shape_for(method: Method) -> dict[str, int]:
    """A batch's shape; with the ways that the method's learner takes, where it does not take any."""
    return SHAPES[method.eats] | ({"ways": method.learner.ways, "tasks": 4} if method.learner.ways else {})


def batch_for(method: Method, split: Split, seed: int = 0) -> Batch:
    return drawn(method.eats, split, BatchShape(**shape_for(method)), seed)


def drawn(eats: type[Batch], split: Split, shape: BatchShape, seed: int = 0) -> Batch:
    augment = preset("views-drawings") if issubclass(eats, Views) else None
    return draw_batch(eats, split.bank, split.labels, shape, augment, Generator().manual_seed(seed))


def state_of(method: Method) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("encoder", ["conv4", pytest.param("resnet12", marks=pytest.mark.slow)])
def test_the_loss_reaches_every_parameter(variant: Variant, drawings: Drawings, encoder: str) -> None:
    method = variant(encoder).train()
    before = state_of(method)
    step = method.step(batch_for(method, drawings[0]), progress=0.0, generator=Generator())
    assert step.loss.shape == ()
    assert step.loss.isfinite()
    assert step.loss > 0
    assert all(value.shape == () and not value.requires_grad for value in step.logs.values())
    step.loss.backward()
    for name, parameter in method.named_parameters():
        if not parameter.requires_grad:  # a target, which follows
            assert parameter.grad is None, name
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    assert equal(
        {name: value for name, value in before.items() if not name.endswith(("mean", "var", "tracked"))},
        {name: value for name, value in state_of(method).items() if not name.endswith(("mean", "var", "tracked"))},
    ), "step writes nothing but the statistics of norm layers"


def plain_loss(method: Method, name: str, batch: Any, settings: dict[str, Any]) -> Tensor:
    """The loss that these settings ask for, from the paper's pieces; nothing but weights is read off the method."""
    encoder = method.learner.encoder
    features = encoder(batch.images)
    if isinstance(method, Baseline):
        rows, bias = method.head.weight, method.head.bias
        linear = settings.get("head") == "linear"
        logits = features @ rows.T + bias if linear else torch.cosine_similarity(features[:, None], rows, dim=2) / 0.1
        chances, share = logits.log_softmax(1), settings.get("smoothing", 0.0)
        return -((1 - share) * chances[range(len(chances)), batch.classes] + share * chances.mean(1)).mean()
    if name == "protonet":
        asked = {"metric": "euclidean", "temperature": 1.0, "turns": 1} | settings
        deployed = Prototypes(encoder, asked["metric"], asked["temperature"])
        return deployed.task_loss(*batch.tasks.turned(asked["turns"]).of(features))
    if settings.get("loss") == "koch":
        # the head's weights at the start: -32 / dim and 4
        scores = 4 - 32 / encoder.dim * torch.cdist(features.sigmoid(), features.sigmoid(), p=1)
        positive, negative = same_class(batch.labels)
        return (-scores[positive].sigmoid().log().mean() - (-scores[negative]).sigmoid().log().mean()) / 2
    if settings.get("normalise", True):
        features = features / features.norm(dim=1, keepdim=True)
    if name == "siamese":
        asked = {"margin": 1.0, "negatives": "hardest"} | settings
        return pair_loss(features, batch.labels, asked["margin"], asked["negatives"])[0]
    asked = {"margin": 0.2, "mining": "semi-hard", "squared": False} | settings
    return triplet_loss(
        features, batch.labels, margin=asked["margin"], mining=asked["mining"], squared=asked["squared"]
    )[0]


@pytest.mark.parametrize("variant", [name for name, (method, _) in VARIANTS.items() if method in METRIC], indirect=True)
def test_every_setting_reaches_the_loss(variant: Variant, drawings: Drawings, request: pytest.FixtureRequest) -> None:
    name, settings = VARIANTS[request.node.callspec.params["variant"]]
    method = variant().train()
    batch = batch_for(method, drawings[0])
    expected = plain_loss(method, name, batch, settings)
    assert method.step(batch, progress=0.0, generator=Generator()).loss.item() == pytest.approx(expected.item())


def test_every_parameter_is_optimised_once(variant: Variant) -> None:
    method = variant()
    groups = method.optimizer(1e-3, 0.1).param_groups
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in method.parameters() if parameter.requires_grad)
    for group in groups:
        for parameter in group["params"]:
            spared = parameter.ndim <= 1 or any(parameter is other for other in method.learner.undecayed())
            assert spared == (group["weight_decay"] == 0)


def test_a_method_takes_its_type_of_batch(variant: Variant, drawings: Drawings) -> None:
    method = variant().train()
    assert type(batch_for(method, drawings[0])) is method.eats
    method.step(batch_for(method, drawings[0]), progress=0.5, generator=Generator())
    declared = [get_args(base) for base in vars(type(method))["__orig_bases__"]]
    assert declared == [(method.eats,)], "a type checker refuses other batches by what the class declares"


@pytest.mark.parametrize("eats", list(SHAPES))
def test_a_batch_has_the_requested_sizes(eats: type[Batch], drawings: Drawings) -> None:
    """Images of its rows, labels of the bank; as many ways, shots, queries and tasks as asked."""
    split, shape = drawings[0], TrainSettings(ways=3, shots=4, queries=5, tasks=6, images=30).shape
    batch = drawn(eats, split, shape)
    if isinstance(batch, ViewBatch):
        assert batch.images.shape == batch.second.shape == (30, 1, 20, 20)
        assert len(batch.rows.unique()) == 30
        return
    if isinstance(batch, LabelledViewBatch):
        assert batch.images.shape == batch.second.shape == (12, 1, 20, 20)
        assert not torch.equal(batch.images, batch.second)
    else:
        assert torch.equal(batch.images, split.bank.images[batch.rows])
    truth = split.labels.classes[batch.rows]
    if isinstance(batch, LabelledBatch):
        assert batch.labels.bincount().tolist() == [4] * 3
        assert torch.equal(batch.labels[:, None] == batch.labels, truth[:, None] == truth)
        assert torch.equal(batch.classes, truth)
        assert len(batch.rows.unique()) == 12
    if isinstance(batch, TaskBatch):
        tasks = batch.tasks
        assert (len(tasks), tasks.ways, tasks.shots, tasks.queries) == (6, 3, 4, 5)
        assert torch.equal(truth[tasks.support], tasks.classes.gather(1, tasks.support_y))
        assert torch.equal(truth[tasks.query], tasks.classes.gather(1, tasks.query_y))
        assert len(batch.rows) == len(torch.cat([tasks.support, tasks.query], dim=1).unique()) == 6 * 3 * 9


def test_defaults_are_settings_of_training(variant: Variant) -> None:
    TrainSettings(**variant().defaults)


@pytest.mark.slow
def test_two_runs_of_one_seed_are_bitwise_equal(variant: Variant, drawings: Drawings) -> None:
    states = []
    for seed in (1, 1, 2):
        method = variant()
        torch.manual_seed(len(states))  # the global generator must not matter
        settings = TrainSettings(steps=4, seed=seed, augment="drawings", **shape_for(method))
        train(method, drawings[0], settings)
        states.append(state_of(method))
    assert equal(states[0], states[1])
    assert not equal(states[0], states[2])


@pytest.mark.parametrize("encoder", ["conv4", pytest.param("resnet12", marks=pytest.mark.slow)])
def test_a_checkpoint_gives_equal_logits(variant: Variant, drawings: Drawings, encoder: str, tmp_path: Path) -> None:
    method = variant(encoder).train()
    for seed in range(2):  # so that running statistics are not those of the start
        method.step(batch_for(method, drawings[0], seed), progress=0.0, generator=Generator())
    record = RunRecord(variant.name, variant.settings)
    save_checkpoint(tmp_path / "model.safetensors", method, record, ["aaa"])
    loaded = load_checkpoint(tmp_path / "model.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert loaded.seen == {"aaa"}
    assert not loaded.method.training
    images, labels = drawings[1].bank.images[:200], Labels.of([str(row // 20) for row in range(200)])
    tasks = draw_tasks(labels, 5, ways=5, shots=2, queries=3, generator=Generator().manual_seed(0))
    logits = []
    for learner in (method.eval().learner, loaded.learner):
        with torch.no_grad():
            support, y, query, _, ways = tasks.of(learner.prepare(images))
            logits.append(learner.logits(learner.adapt(support, y, ways), query))
    assert torch.equal(*logits)
    assert equal(state_of(method), state_of(loaded.method))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("encoder", ["conv4", "resnet12"])
def test_a_gpu_gives_the_results_of_the_cpu(
    variant: Variant, drawings: Drawings, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # ten bits would be too few for what steps build on
    method = variant(encoder).to("cuda")
    train(method, drawings[0], TrainSettings(steps=4, augment="drawings", **shape_for(method)))
    tasks = draw_tasks(drawings[1].labels, 5, ways=5, shots=2, queries=3, generator=Generator().manual_seed(0))
    logits = []
    for device in ("cuda", "cpu"):
        learner = method.to(device).eval().learner
        with torch.no_grad():
            support, y, query, _, ways = tasks.of(learner.prepare(drawings[1].bank.images.to(device)))
            logits.append(learner.logits(learner.adapt(support, y, ways), query).cpu())
    on_gpu, on_cpu = logits
    assert (on_gpu - on_cpu).abs().max() < 0.01 * on_cpu.std()


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_it_learns(variant: Variant, drawings: Drawings, device: str) -> None:
    """Few steps beat the untrained encoder by ten points and both intervals, on unseen classes.

    They are 40 where every task adapts the body, 240 of what follows itself, and 80 of others. Statistics of norm
    layers alone, at a learning rate of nothing, give at most four points.
    """
    method, (seen, unseen) = variant().to(device), drawings
    adapts = method.learner.state_numbers > 0
    tasks = draw_tasks(
        unseen.labels,
        100 if method.learner.ways or adapts else 300,
        ways=5,
        shots=1,
        queries=10,
        generator=Generator().manual_seed(0),
    )
    before = evaluate(method.learner, unseen.bank, tasks)
    pace = {"lr": 1e-2} | {name: method.defaults[name] for name in ("lr", "schedule") if name in method.defaults}
    if issubclass(method.eats, Views):
        pace |= {"lr": 1e-2, "augment": "views-drawings"}
    # Of those with a target, the first steps are spent on contrasting with noise.
    steps = 240 if hasattr(method, "target") else 40 if adapts else 80
    train(method, seen, TrainSettings(steps=steps, **pace, **shape_for(method)))
    after = evaluate(method.learner, unseen.bank, tasks)
    assert after.accuracy - before.accuracy > 10 + after.ci95 + before.ci95


@pytest.mark.parametrize("name", list(METHODS))
def test_unknown_names_are_refused_with_the_nearest(name: str, small_encoder: Callable[..., Encoder]) -> None:
    with pytest.raises(MetarepError, match=f"unknown method '{name}s'; did you mean '{name}'"):
        build_method(f"{name}s", small_encoder(), {})
    known = build_method(name, small_encoder(), {}).__init__.__annotations__
    setting = next(setting for setting in known if setting not in ("encoder", "return"))
    with pytest.raises(MetarepError, match=f"unknown setting of {name} '{setting}x'; did you mean '{setting}'"):
        build_method(name, small_encoder(), {f"{setting}x": 1})
    with pytest.raises(MetarepError, match=f"unknown setting of {name} 'encoder'"):
        build_method(name, small_encoder(), {"encoder": None})


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("protonet", {"metric": "cosin"}),
        ("siamese", {"loss": "koc"}),
        ("siamese", {"negatives": "some"}),
        ("triplet", {"mining": "hard"}),
        ("moco", {"head": "mpl"}),
    ],
)
def test_unknown_values_are_refused(name: str, settings: dict[str, Any], small_encoder: Callable[..., Encoder]) -> None:
    """And never taken for the default."""
    (value,) = settings.values()
    with pytest.raises((MetarepError, TypeCheckError), match=repr(value)):  # the latter where annotations are checked
        build_method(name, small_encoder(), settings)


def test_a_baseline_has_a_row_for_every_class(drawings: Drawings, small_encoder: Callable[..., Encoder]) -> None:
    job, split = Job("baseline", train={"ways": 5}), drawings[0]
    assert own_settings(job, train_settings(job, split), split)["classes"] == 40
    divided = replace(split.labels, others=(split.labels,))
    with pytest.raises(MetarepError, match=r"baseline learns one weight row for each class, .* take partitions=1"):
        own_settings(job, job.train_settings, split._replace(labels=divided))
    few = Baseline(small_encoder(), classes=3)
    batch = batch_for(few, split)
    assert isinstance(batch, LabelledBatch)
    with pytest.raises(MetarepError, match=r"has classes=3, and the batch has class \d+; do not set classes"):
        few.step(batch, progress=0.0, generator=Generator())
    with pytest.raises(MetarepError, match=r"smoothing must be from 0 to below 1, not 1\.0"):
        Baseline(small_encoder(), smoothing=1.0)
