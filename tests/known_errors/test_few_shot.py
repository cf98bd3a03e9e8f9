"""Known errors of few-shot libraries, each as a test against this one. The names read as the list of errors."""

import gc
import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from inner_loops import WAYS, gradients, learner, same, solved, tasks_of
from torch import Generator, Tensor, nn

from metarep.data.batch import BatchShape, TaskBatch
from metarep.data.batches import draw_batch
from metarep.data.datasets import load_dataset
from metarep.data.datasets.cifar import A_CLASS
from metarep.data.datasets.lists import split_list
from metarep.data.split import Split
from metarep.data.tasks import TaskIndex, draw_tasks
from metarep.encoders import Encoder, Preprocess, build_encoder
from metarep.experiments.job import Job
from metarep.experiments.measurement.evaluation import evaluate
from metarep.experiments.measurement.interval import interval
from metarep.experiments.measurement.rows import result_row
from metarep.experiments.start import start
from metarep.experiments.training import train
from metarep.experiments.validation import validation_tasks
from metarep.learners import GradientDescent, Prototypes
from metarep.learners.distances import task_cross_entropy
from metarep.learners.inner_loop import InnerLoop, Task, meta_loss
from metarep.machine.ranks import Part
from metarep.methods import ANIL, MAML, METHODS, ProtoNet, Reptile, Step, build_method
from metarep.methods.maml import step_weights
from metarep.weights.settings import TrainSettings

Drawings = tuple[Split, Split]
Make = Callable[..., Encoder]
SHAPE = BatchShape(ways=5, shots=2, queries=3, tasks=3)


def drawn(split: Split, seed: int = 0, shape: BatchShape = SHAPE) -> TaskBatch:
    batch = draw_batch(TaskBatch, split.bank, split.labels, shape, None, Generator().manual_seed(seed))
    assert isinstance(batch, TaskBatch)
    return batch


def some_tasks(split: Split, n: int = 40, seed: int = 0, **shape: int) -> TaskIndex:
    shape = {"ways": 5, "shots": 2, "queries": 3} | shape
    return draw_tasks(split.labels, n, **shape, generator=Generator().manual_seed(seed))


def loss_of(made: GradientDescent, tasks: Task, order: int = 2, weights: tuple[float, ...] | None = None) -> Tensor:
    return meta_loss(made.start, InnerLoop(made.steps, made.adapted, order, weights), tasks, WAYS)


def test_01_tasks_of_a_test_split_show_training_classes() -> None:
    torch.manual_seed(5)  # and the split follows the global generator
    parts = {part: load_dataset("glyphs", part) for part in ("train", "val", "test")}
    torch.manual_seed(6)
    assert load_dataset("glyphs", "test").labels.names == parts["test"].labels.names
    keys = []
    for split in parts.values():
        tasks = some_tasks(split, 200)
        assert torch.equal(split.labels.classes[tasks.support], tasks.classes.gather(1, tasks.support_y))
        keys.append({split.labels.keys[row] for row in split.labels.classes[tasks.query].unique().tolist()})
    assert len(set.union(*keys)) == sum(map(len, keys)) > 100


def test_02_multi_step_losses_are_divided_by_their_weights() -> None:
    made, tasks, weights = learner(steps=3), tasks_of(n=2), (0.2, 0.3, 0.5)
    alone = [loss_of(learner(steps=steps), tasks) for steps in (1, 2, 3)]
    expected = sum(weight * loss.item() for weight, loss in zip(weights, alone, strict=True))
    assert loss_of(made, tasks, weights=weights).item() == pytest.approx(expected, rel=1e-9)
    early = [step_weights(5, progress) or (0.0,) * 4 + (1.0,) for progress in (0.0, 0.5, 0.9, 1.0)]
    assert [each[0] for each in early] == pytest.approx([0.2, 0.1, 0.02, 0.0]), "earlier steps count less and less"
    assert all(sum(each) == pytest.approx(1) for each in early)


def test_03_support_and_query_are_cut_from_a_flat_permutation(drawings: Drawings) -> None:
    batch = drawn(drawings[0])
    truth = drawings[0].labels.classes[batch.rows]
    for rows, y, each in (
        (batch.tasks.support, batch.tasks.support_y, SHAPE.shots),
        (batch.tasks.query, batch.tasks.query_y, SHAPE.queries),
    ):
        for row in range(SHAPE.tasks):
            assert truth[rows[row]].unique(return_counts=True)[1].tolist() == [each] * SHAPE.ways
            assert y[row].bincount().tolist() == [each] * SHAPE.ways


def test_04_the_first_order_gradient_is_not_that_at_the_adapted_weights() -> None:
    made, tasks = learner(), tasks_of(n=1)
    adapted = learner(steps=0)
    made.eval()
    state = made.adapt(tasks.support, tasks.support_y, WAYS)
    made.train()
    assert not any(part.requires_grad or part.grad_fn for part in state.values()), "adapting keeps no graph"
    with torch.no_grad():
        ends = [*adapted.encoder.body.parameters(), adapted.head.weight, adapted.head.bias]
        for i, parameter in enumerate(ends):
            parameter.copy_(state[f"weight.{i}"][0])
    first = gradients(loss_of(made, tasks, order=1), made)
    same(first, {name: part for name, part in gradients(loss_of(adapted, tasks), adapted).items() if name in first})
    second = gradients(loss_of(made, tasks), made)
    assert any((first[name] - second[name]).abs().max() > 1e-4 for name in first)


@pytest.mark.parametrize("name", METHODS)
def test_05_a_query_is_normalised_with_the_other_queries(name: str, small_encoder: Make, drawings: Drawings) -> None:
    made = build_method(name, small_encoder(), {}).learner.eval()
    assert made.protocol == "inductive"
    with torch.no_grad():
        support, y, query, _, ways = some_tasks(drawings[1], 2).of(made.prepare(drawings[1].bank.images))
        state = made.adapt(support, y, ways)
        torch.testing.assert_close(made.logits(state, query)[:, :1], made.logits(state, query[:, :1]))
    if made.state_numbers:
        assert MAML(small_encoder(), normalisation="transductive").learner.protocol == "transductive", "it is said"


def test_06_whether_the_inner_loop_adapts_norm_layers_is_not_said() -> None:
    tasks = tasks_of(n=1)
    for scope, moved in (("all", True), ("all-but-norms", False)):
        made = learner(scope=scope).eval()
        state = made.adapt(tasks.support, tasks.support_y, WAYS)
        norms = [i for i, p in enumerate(made.encoder.body.parameters()) if p.ndim == 1]
        start_of = list(made.encoder.body.parameters())
        assert len(norms) == 8
        assert all(torch.equal(state[f"weight.{i}"][0], start_of[i]) != moved for i in norms)
        assert made.settings["scope"] == scope


def test_07_losses_are_summed_over_queries_or_tasks() -> None:
    logits, y = torch.randn(2, 3, 4, generator=Generator().manual_seed(0)), torch.tensor([[0, 1, 2], [3, 0, 1]])
    assert task_cross_entropy(logits.repeat(4, 5, 1), y.repeat(4, 5)).item() == pytest.approx(
        task_cross_entropy(logits, y).item()
    )
    made, tasks = learner(), tasks_of(n=2)
    twice = Task(*(torch.cat([part, part]) for part in tasks))
    more = tasks._replace(query=tasks.query.repeat(1, 2, 1, 1, 1), query_y=tasks.query_y.repeat(1, 2))
    once = gradients(loss_of(made, tasks), made)
    for other in (twice, more):
        same(gradients(loss_of(made, other), made), once)


def test_08_anils_outer_step_leaves_the_body_or_the_second_order_out(small_encoder: Make, drawings: Drawings) -> None:
    method, batch = ANIL(small_encoder(), ways=5, inner_steps=3).train(), drawn(drawings[0])
    seen: list[int] = []
    method.learner.encoder.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    method.step(batch, progress=0.0, generator=Generator()).loss.backward()
    assert seen == [len(batch.images)], "features are computed once an image"
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in method.parameters())
    head = method.learner.head
    rows, y = torch.randn(1, 10, 16, generator=Generator().manual_seed(0)).double(), torch.arange(5).repeat(2)[None]
    query, query_y = rows.flip(1), y.roll(1, 1)
    method.double()

    def loss(weight: Tensor) -> Tensor:
        with torch.no_grad():
            head.weight.copy_(weight)
        return method.learner.task_loss(rows, y, query, query_y, 5)

    at, way = head.weight.detach().clone(), torch.randn(5, 16, generator=Generator().manual_seed(1)).double()
    (slope,) = torch.autograd.grad(loss(at), head.weight)
    numeric = (loss(at + 1e-5 * way) - loss(at - 1e-5 * way)).item() / 2e-5
    assert (slope * way).sum().item() == pytest.approx(numeric, rel=1e-6), "through the steps of the head"


def test_09_reptile_has_a_first_moment_a_state_for_each_task_or_a_rate_that_stays(
    small_encoder: Make, drawings: Drawings
) -> None:
    method = Reptile(small_encoder(), ways=5, inner_steps=2, inner_lr=1e-2, test_steps=2)
    rates = TrainSettings(**Reptile.defaults)
    assert (rates.lr_at(0), rates.lr_at(rates.steps - 1)) == (1.0, pytest.approx(1 / rates.steps))
    assert all("first" not in name and "exp_avg" not in name for name in method.state_dict()), "beta 1 is 0"
    step = method.train().step(drawn(drawings[0]), progress=0.0, generator=Generator())
    method.after_step(step.carry, 0.0)
    assert method.learner.get_buffer("adam_steps") == 2, "the next tasks go on with this state"
    assert all(method.learner.get_buffer(f"second_{i}").any() for i in range(14))
    before = {name: value.clone() for name, value in method.state_dict().items()}
    reports = [evaluate(method.learner, drawings[1].bank, some_tasks(drawings[1], 4)) for _ in range(2)]
    assert torch.equal(reports[0].per_task, reports[1].per_task)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_10_a_character_and_its_rotation_are_in_two_parts_of_omniglot() -> None:
    names = [{f"{alphabet}/{n}" for alphabet, ns in part.items() for n in ns} for part in vinyals()]
    assert [len(part) for part in names] == [1028, 172, 423], "as published; four rotations share the key of one"
    assert len(set.union(*names)) == 1623


def vinyals() -> list[dict[str, list[int]]]:
    lists = json.loads((files("metarep.data.datasets") / "splits" / "omniglot_vinyals.json").read_text("utf-8"))
    return [lists[part] for part in ("train", "val", "test")]


def test_11_cifar_fs_has_five_hundred_images_a_class_or_the_classes_of_fc100() -> None:
    assert A_CLASS == 600, "of both parts of CIFAR-100"
    fs, fc = ([set(split_list(name)[part]) for part in ("train", "val", "test")] for name in ("cifar_fs", "fc100"))
    assert [[len(part) for part in split] for split in (fs, fc)] == [[64, 16, 20], [60, 20, 20]]
    assert len(set.union(*fs)) == len(set.union(*fc)) == 100
    assert fs[2] != fc[2]


def test_12_classes_have_the_same_numbers_in_every_task(drawings: Drawings) -> None:
    classes = some_tasks(drawings[0], 2000).classes
    assert not torch.equal(classes, classes.sort(1).values)
    share = (classes == classes.amax(1, keepdim=True)).float().mean(0)
    assert ((share - 0.2).abs() < 0.05).all(), "the last class of a task has each number equally often"


def test_13_training_draws_from_a_pool_of_tasks_and_tests_from_other_tasks(
    drawings: Drawings, small_encoder: Make
) -> None:
    class Watched(ProtoNet):
        def step(self, batch: TaskBatch, *, progress: float, generator: Generator) -> Step:
            seen.append(batch.digest)
            return super().step(batch, progress=progress, generator=generator)

    seen: list[str] = []
    train(Watched(small_encoder()), drawings[0], TrainSettings(steps=12, ways=5, queries=2))
    assert len(set(seen)) == 12
    settings, learner = TrainSettings(validation_tasks=20), Prototypes(small_encoder())
    made = [validation_tasks(drawings[1], settings, learner, TaskBatch) for _ in range(2)]
    assert made[0] is not None
    assert made[1] is not None
    assert made[0].digest == made[1].digest


def test_14_a_row_does_not_say_ways_shots_queries_steps_and_statistics(small_encoder: Make, drawings: Drawings) -> None:
    method = MAML(small_encoder(), ways=5, inner_steps=1, test_steps=2)
    report = evaluate(method.learner, drawings[1].bank, some_tasks(drawings[1], 3, shots=1), split="drawings/test")
    said = str(report)
    for part in ("5-way 1-shot", "3 tasks of 3 queries", "inductive", "support statistics", "descent, 2 steps"):
        assert part in said
    assert {"ways", "shots", "queries", "learner", "protocol", "normalisation", "digest"} <= report.as_dict().keys()


def test_15_the_interval_is_over_batches_or_images(drawings: Drawings, small_encoder: Make) -> None:
    learner, tasks = Prototypes(small_encoder()), some_tasks(drawings[1], 150)
    reports = [evaluate(learner, drawings[1].bank, tasks, batch=batch) for batch in (16, 800)]
    accuracies = reports[0].per_task
    assert len(accuracies) == 150
    assert reports[0].ci95 == pytest.approx(1.96 * accuracies.std().item() / 150**0.5)
    assert reports[0].ci95 == pytest.approx(reports[1].ci95)
    assert interval(accuracies)[1] == pytest.approx(reports[0].ci95)


def test_16_training_looks_at_the_test_classes(
    drawings: Drawings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def load(data: str, part: str, **_: Any) -> Split:
        asked.append(part)
        return drawings[part == "val"]

    monkeypatch.setattr("metarep.experiments.start.load_dataset", load)
    shape = {"steps": 2, "ways": 5, "queries": 2, "validate_every": 1, "validation_tasks": 5}
    trained, outcome = start(Job("protonet", train=shape), tmp_path, precision="float32")
    assert asked == ["train", "val"]
    assert [path.name for path in tmp_path.glob("model*")] == ["model.safetensors"], "one checkpoint, no ensemble"
    report = evaluate(trained.learner, drawings[1].bank, some_tasks(drawings[1], 2), split="drawings/test")
    assert result_row(trained, "trained", report, tmp_path)["seeds"] == 1
    assert outcome.accuracy is not None


def test_17_prototypes_are_compared_by_plain_distances() -> None:
    support, query = torch.tensor([[[0.0, 0.0], [3.0, 4.0]]]), torch.tensor([[[0.0, 0.0]]])
    learner = Prototypes(Encoder(nn.Flatten(), Preprocess((1, 2), 1, (0.0,), (1.0,))))
    assert learner.logits(learner.adapt(support, torch.tensor([[0, 1]]), 2), query).tolist() == [[[0.0, -25.0]]]


def test_18_a_conv4_is_another_conv4() -> None:
    encoder = build_encoder("conv4", Preprocess((28, 28), 1, (0.5,), (0.25,)))
    kinds = [type(layer).__name__ for layer in encoder.body.modules() if not [*layer.children()]]
    assert [kinds.count(kind) for kind in ("Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d")] == [4] * 4
    strides = {layer.stride for layer in encoder.body.modules() if isinstance(layer, nn.Conv2d)}
    assert (strides, encoder.dim) == ({(1, 1)}, 64)
    assert {"name": "conv4"}.items() <= encoder.arch.items(), "a checkpoint keeps it with the preprocessing"


@pytest.mark.parametrize("order", [1, 2])
def test_19_graphs_of_tasks_stay_alive(order: int) -> None:
    made, tasks = learner(steps=3), tasks_of()
    loss_of(made, tasks, order=order).backward()
    solved(made.eval(), tasks)
    gc.collect()
    graphs = [each for each in gc.get_objects() if type(each) is Tensor and each.grad_fn is not None]
    assert graphs == []


def test_20_the_batches_of_many_processes_ignore_the_seed(drawings: Drawings) -> None:
    digests = []
    for seed, noise in ((1, 5), (1, 6), (2, 6)):
        torch.manual_seed(noise)
        digests.append(drawn(drawings[0], seed).digest)
    assert digests[0] == digests[1] != digests[2], "all processes draw it from the seed"
    parts = [Part(rank, 3, 8) for rank in range(3)]
    assert [row for part in parts for row in range(8)[part.slice]] == list(range(8)), "and each takes its own part"
