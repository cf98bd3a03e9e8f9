"""Distillation: the loss against its formula, teachers that stay as they are, and runs that are resumed."""

import json
import math
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from contrasting import wide
from torch import Generator, Tensor
from torch.nn import functional
from trainings import PulledError, pull_at, same

from metarep.data.batch import Batch, BatchShape
from metarep.data.batches import draw_batch
from metarep.data.split import Split
from metarep.encoders import Encoder
from metarep.errors import MetarepError
from metarep.experiments.job import Job
from metarep.experiments.measurement.rows import beginning
from metarep.experiments.start import start
from metarep.experiments.training import train
from metarep.methods import METHODS, Baseline, Method, ProtoNet
from metarep.methods.losses import distillation_loss
from metarep.methods.student import Student
from metarep.weights.checkpoint import load_checkpoint

Drawings = tuple[Split, Split]
Make = Callable[..., Encoder]
KINDS: dict[str, Callable[..., Student]] = {
    "baseline, cosine": lambda encoder, **how: Baseline(encoder, classes=40, **how),
    "baseline, linear": lambda encoder, **how: Baseline(encoder, classes=40, head="linear", smoothing=0.1, **how),
    "protonet": lambda encoder, **how: ProtoNet(encoder, turns=2, **how),
    "protonet, cosine": lambda encoder, **how: ProtoNet(encoder, metric="cosine", temperature=0.1, **how),
}


def slow_distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``t**2 * sum p log(p / q)``, one row and one class at a time."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for own, wanted in zip(logits.flatten(0, -2), teacher.flatten(0, -2), strict=True):
        q = (own / temperature).exp() / (own / temperature).exp().sum()
        p = [math.exp(value / temperature) for value in wanted.tolist()]
        count += 1
        for k, each in enumerate(p):
            total = total + each / sum(p) * (math.log(each / sum(p)) - q[k].log())
    return temperature**2 * total / count


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("shape", [(6, 5), (2, 3, 5)])
def test_the_loss_and_its_gradient_are_the_formula(temperature: float, shape: tuple[int, ...]) -> None:
    count = math.prod(shape[:-1])
    logits = (3 * wide(count, 5)).view(shape).requires_grad_()
    teacher = (3 * wide(count, 5, 1)).view(shape)
    expected = slow_distillation(logits, teacher, temperature)
    loss = distillation_loss(logits, teacher, temperature)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    (got,), (wanted,) = torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits)
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)
    soft = (logits / temperature).softmax(-1) - (teacher / temperature).softmax(-1)
    torch.testing.assert_close(got, temperature * soft / count)  # what the factor t**2 leaves of the temperature


def made(kind: str, encoder: Encoder, seed: int = 0, **how: Any) -> Student:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return KINDS[kind](encoder, **how).double().train()


def batch_for(method: Method, split: Split) -> Batch:
    shape = BatchShape(ways=5, shots=2, queries=3, tasks=2)
    batch = draw_batch(method.eats, split.bank, split.labels, shape, None, Generator().manual_seed(0))
    return replace(batch, images=batch.images.double() / 255)


def plain_logits(method: Method, batch: Any) -> tuple[Tensor, Tensor]:
    """The logits and the labels of a method without ``turns``, from the paper's pieces."""
    features = method.learner.encoder(batch.images)
    if isinstance(method, Baseline):
        rows = method.head.weight
        if method.head.bias is not None:
            return features @ rows.T + method.head.bias, batch.classes
        return torch.cosine_similarity(features[:, None], rows, dim=2) / 0.1, batch.classes
    support, support_y, query, query_y, ways = batch.tasks.turned(method.turns).of(features)
    logits = method.learner.logits(method.learner.adapt(support, support_y, ways), query)
    return logits.flatten(0, 1), query_y.flatten()


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_weighs_labels_and_a_teacher_that_is_frozen(kind: str, drawings: Drawings, small_encoder: Make) -> None:
    student = made(kind, small_encoder(), label_weight=0.3, teacher_weight=2.0, teacher_temperature=3.0)
    teacher = made(kind, small_encoder(seed=1), 1)
    batch, before = batch_for(student, drawings[0]), {key: value.clone() for key, value in teacher.state_dict().items()}
    alone = student.step(batch, progress=0.0, generator=Generator()).loss
    student.learn_from(teacher)
    student.train()
    assert not teacher.training
    loss = student.step(batch, progress=0.0, generator=Generator()).loss
    logits, labels = plain_logits(student, batch)
    wanted, _ = plain_logits(teacher, batch)
    hard = functional.cross_entropy(logits, labels, label_smoothing=getattr(student, "smoothing", 0.0))
    assert alone.item() == pytest.approx(hard.item(), rel=1e-9), "without a teacher the weights do not count"
    expected = 0.3 * hard + 2 * slow_distillation(logits, wanted.detach(), 3.0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    weights = list(student.parameters())
    assert not any(name.startswith("teacher") for name in student.state_dict())
    for one, other in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)
    assert same(before, teacher.state_dict()), "its statistics do not move, either"
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in teacher.parameters())


def test_teachers_that_cannot_teach_are_refused(small_encoder: Make) -> None:
    baseline, protonet = KINDS["baseline, cosine"](small_encoder()), KINDS["protonet"](small_encoder())
    with pytest.raises(MetarepError, match=r"only a baseline has logits of all training classes, .* is a protonet"):
        baseline.learn_from(protonet)
    with pytest.raises(MetarepError, match="this teacher has 3 classes, and this training 40"):
        baseline.learn_from(Baseline(small_encoder(), classes=3))
    with pytest.raises(MetarepError, match="this teacher solves 5-way tasks only"):
        protonet.learn_from(METHODS["maml"](small_encoder(), ways=5))
    protonet.learn_from(baseline)  # any features have class means
    assert protonet.teacher is not None
    with pytest.raises(MetarepError, match="teacher_weight must be a number of at least 0, not -1"):
        ProtoNet(small_encoder(), teacher_weight=-1.0)
    with pytest.raises(MetarepError, match="both 0, so nothing would be learned"):
        ProtoNet(small_encoder(), teacher_weight=0.0, label_weight=0.0)
    with pytest.raises(MetarepError, match="teacher_temperature must be a number above 0"):
        Baseline(small_encoder(), teacher_temperature=0.0)


def test_jobs_without_a_student_or_without_a_teacher_are_refused() -> None:
    with pytest.raises(
        MetarepError, match="maml cannot learn from a teacher; protonet, baseline can; leave out teacher"
    ):
        Job("maml", teacher="runs/maml")
    with pytest.raises(MetarepError, match="teacher_weight weigh what a teacher says, and there is none"):
        Job("baseline", {"teacher_weight": 0.5})


@pytest.fixture
def data(drawings: Drawings, monkeypatch: pytest.MonkeyPatch) -> dict[str, Split]:
    found = {"train": drawings[0], "val": drawings[1]}
    monkeypatch.setattr("metarep.experiments.start.load_dataset", lambda data, part, **_: found[part])
    return found


def job(method: str, **more: Any) -> Job:
    shape = {"steps": 6, "validate_every": 2, "validation_tasks": 10, "ways": 6, "shots": 2, "queries": 2}
    shape |= {"augment": "drawings"}
    return Job(method, train=shape | more.pop("train", {}), encoder={"name": "conv4", "width": 8}, **more)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["baseline", "protonet"])
def test_a_taught_run_is_resumed_with_the_teacher_it_began_with(
    method: str, data: dict[str, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, though the teacher's folder is gone; its head is in its checkpoint."""
    monkeypatch.setattr(sys.modules[train.__module__], "LOG_EVERY", 1)
    first, _ = start(job(method), tmp_path / "first", precision="float32")
    taught = job(method, teacher=str(tmp_path / "first"), settings={"teacher_weight": 0.9})
    whole, _ = start(taught, tmp_path / "whole", precision="float32")
    with pytest.raises(PulledError):
        start(taught, tmp_path / "pieces", precision="float32", watch=pull_at(5))
    shutil.rmtree(tmp_path / "first")
    pieces, _ = start(taught, tmp_path / "pieces", precision="float32")
    assert same(dict(whole.tensors), dict(pieces.tensors))
    kept = load_checkpoint(tmp_path / "pieces" / "teacher.safetensors")
    assert same(dict(kept.tensors), dict(first.tensors))
    untaught, _ = start(job(method), tmp_path / "untaught", precision="float32")
    assert same(dict(untaught.tensors), dict(first.tensors))
    assert not same(dict(untaught.tensors), dict(whole.tensors))
    settings = json.loads((tmp_path / "whole" / "settings.json").read_text())
    assert settings["teacher"] == "first"
    record = load_checkpoint(tmp_path / "whole" / "model.safetensors").record
    assert (record.teacher, record.init, beginning(record.init, record.teacher)) == (
        *("first", ""), "random, taught by first",
    )  # fmt: skip
    with pytest.raises(MetarepError, match="teacher = 'first', not None"):
        start(job(method, settings={}), tmp_path / "whole", precision="float32")


def test_the_classes_of_a_teacher_count_as_seen(data: dict[str, Split], tmp_path: Path) -> None:
    start(job("protonet", train={"steps": 1}), tmp_path / "first", precision="float32")
    data["trainval"], taught = data["val"], {"teacher": str(tmp_path / "first"), "train": {"steps": 1}}
    trained, _ = start(job("protonet", train_on="trainval", **taught), tmp_path / "then", precision="float32")
    with pytest.raises(MetarepError, match="40 of the 40 classes of train were seen in training"):
        trained.refuse_seen(data["train"].labels, "train")
    data["train"], data["val"] = data["val"], data["train"]
    with pytest.raises(MetarepError, match="were trained on, by this run or one it is based on"):
        start(job("protonet", **taught), tmp_path / "unfair", precision="float32")
    assert not (tmp_path / "unfair").exists()


def test_a_teacher_of_other_classes_or_images_is_refused(data: dict[str, Split], tmp_path: Path) -> None:
    start(job("baseline", train={"steps": 1}), tmp_path / "first", precision="float32")
    taught = {"teacher": str(tmp_path / "first"), "train_on": "trainval"}
    data["trainval"] = data["val"]
    with pytest.raises(MetarepError, match=r"first was trained on other labels, so its logits are not of these"):
        start(job("baseline", **taught), tmp_path / "a", precision="float32")
    small = type(data["train"].bank)(data["train"].bank.images[..., :16, :16])
    data["trainval"] = data["train"]._replace(bank=small)
    with pytest.raises(MetarepError, match=r"first was trained on images with size \(20, 20\), and these have"):
        start(job("protonet", **taught), tmp_path / "b", precision="float32")
    data["trainval"] = data["train"]
    with pytest.raises(MetarepError, match="unknown model or run folder 'nowhere'"):
        start(job("baseline", teacher="nowhere"), tmp_path / "c", precision="float32")
    start(job("protonet", train={"steps": 1}), tmp_path / "p", precision="float32")
    with pytest.raises(MetarepError, match=r"/p: only a baseline has logits"):
        start(job("baseline", teacher=str(tmp_path / "p")), tmp_path / "d", precision="float32")
