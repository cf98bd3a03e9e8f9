"""train: resuming is exact, the best step is kept, what diverges is stopped, the log is a log."""

import json
import math
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Generator, Tensor

from metarep import __version__
from metarep.data.batches import LabelledBatch, TaskBatch
from metarep.data.split import Split
from metarep.encoders import Encoder
from metarep.errors import MetarepError
from metarep.experiments.run_folder import RunFolder
from metarep.experiments.training import DivergedError, Outcome, train
from metarep.machine.device import environment
from metarep.machine.files import read_tensors
from metarep.methods import Method, ProtoNet, Siamese, Step
from metarep.weights.checkpoint import load_checkpoint
from metarep.weights.record import DataRecord, RunRecord
from metarep.weights.settings import TrainSettings

Drawings = tuple[Split, Split]
Make = Callable[..., Encoder]
LOOP = sys.modules[train.__module__]
SMALL: dict[str, Any] = {"steps": 12, "ways": 6, "shots": 2, "queries": 2, "validate_every": 4, "validation_tasks": 20}
OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "AMSGrad": lambda p, lr, decay: torch.optim.AdamW(p, lr, weight_decay=decay, amsgrad=True),
    "SGD": lambda p, lr, decay: torch.optim.SGD(p, lr, weight_decay=decay),
    "SGD with momentum": lambda p, lr, decay: torch.optim.SGD(p, lr, momentum=0.9, nesterov=True, weight_decay=decay),
    "RMSprop": lambda p, lr, decay: torch.optim.RMSprop(p, lr, momentum=0.9, centered=True, weight_decay=decay),
    "Adagrad": lambda p, lr, decay: torch.optim.Adagrad(p, lr, weight_decay=decay),
}
CLOCK = ("images_per_second", "seconds_left", "seconds")


class PulledError(Exception):
    """The plug."""


class Case(NamedTuple):
    encoder: str = "conv4"
    optimiser: str | None = None
    validated: bool = True
    method: type[Method] = ProtoNet
    augment: str = "none"


CASES = {
    "AdamW": Case(),
    **{name: Case(optimiser=name) for name in OPTIMISERS},
    "without validation": Case(validated=False),
    "ResNet12 with DropBlock": Case("resnet12"),
    "ResNet12 without validation": Case("resnet12", validated=False, augment="drawings"),
    "siamese, augmented": Case(method=Siamese, augment="drawings"),
}


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(autouse=True)
def every_step_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOOP, "LOG_EVERY", 1)


def build(case: Case, make: Make) -> Method:
    method = case.method(make(case.encoder))
    if case.optimiser:
        method.optimizer = lambda lr, decay: OPTIMISERS[case.optimiser](method.parameters(), lr, decay)  # type: ignore[method-assign]
    return method


def folder(path: Path, settings: TrainSettings, **more: Any) -> RunFolder:
    return RunFolder(path, RunRecord("protonet", train=settings, **more), ["aaa"])


def pull_at(step: int) -> Callable[[dict[str, Any]], None]:
    def watch(record: dict[str, Any]) -> None:
        if record["step"] == step:
            raise PulledError

    return watch


def without_clock(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name not in CLOCK} for record in records]


def run(case: Case, drawings: Drawings, make: Make, path: Path, *pulls: int) -> tuple[Method, Outcome, RunFolder]:
    """A training in a folder, interrupted at each of ``pulls`` and taken up by a new process's objects."""
    settings = TrainSettings(**{**SMALL, "augment": case.augment})
    validation = drawings[1] if case.validated else None
    for stop in pulls:
        with pytest.raises(PulledError):
            train(
                build(case, make), drawings[0], settings,
                validation=validation, run=folder(path, settings), watch=pull_at(stop),
            )  # fmt: skip
    method, place = build(case, make), folder(path, settings)
    return method, train(method, drawings[0], settings, validation=validation, run=place), place


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("pulls", [(7,), (3, 5, 9, 12)], ids=["once", "four times"])
@pytest.mark.slow
def test_a_resumed_training_is_the_uninterrupted_one(
    case: Case, pulls: tuple[int, ...], drawings: Drawings, small_encoder: Make, tmp_path: Path
) -> None:
    """Bit for bit: weights, statistics, state of the optimiser, what was best, and every line of the log."""
    whole, outcome, one = run(case, drawings, small_encoder, tmp_path / "whole")
    pieces, again, other = run(case, drawings, small_encoder, tmp_path / "pieces", *pulls)
    assert same(whole.state_dict(), pieces.state_dict())
    assert (outcome.step, outcome.accuracy) == (again.step, again.accuracy)
    assert without_clock(one.records()) == without_clock(other.records())
    for file in ("state.safetensors", "model.safetensors"):
        (tensors, header), (others, heading) = read_tensors(one.path / file), read_tensors(other.path / file)
        assert same(tensors, others), file
        assert without_clock([header]) == without_clock([heading])


def test_a_finished_training_is_not_trained_again(drawings: Drawings, small_encoder: Make, tmp_path: Path) -> None:
    method, outcome, _ = run(Case(), drawings, small_encoder, tmp_path)
    log = (tmp_path / "log.jsonl").read_text()
    again, same_outcome, _ = run(Case(), drawings, small_encoder, tmp_path)
    assert same(method.state_dict(), again.state_dict())
    assert (same_outcome.step, same_outcome.accuracy) == (outcome.step, outcome.accuracy)
    assert same_outcome.seconds == pytest.approx(outcome.seconds)
    assert (tmp_path / "log.jsonl").read_text() == log


def test_the_log_has_every_step_once(drawings: Drawings, small_encoder: Make, tmp_path: Path) -> None:
    """Also when the plug is pulled before anything was saved."""
    *_, place = run(Case(), drawings, small_encoder, tmp_path, 3, 6, 7, 11)
    losses = [record for record in place.records() if "loss" in record]
    checks = [record for record in place.records() if "accuracy" in record]
    assert [record["step"] for record in losses] == list(range(1, 13))
    assert [record["step"] for record in checks] == [4, 8, 12]
    settings = TrainSettings(**SMALL)
    for record in losses:
        assert set(record) == {"step", "loss", "lr", "images_per_second", "seconds_left"}
        assert record["lr"] == settings.lr_at(record["step"] - 1)
        assert record["images_per_second"] > 0
        assert math.isfinite(record["loss"])
    assert all(set(record) == {"step", "accuracy", "ci95"} for record in checks)


def test_a_line_that_was_being_written_does_not_stop_a_resume(
    drawings: Drawings, small_encoder: Make, tmp_path: Path
) -> None:
    settings = TrainSettings(**SMALL)
    with pytest.raises(PulledError):
        train(
            build(Case(), small_encoder), drawings[0], settings,
            run=folder(tmp_path, settings), watch=pull_at(6),
        )  # fmt: skip
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    train(build(Case(), small_encoder), drawings[0], settings, run=folder(tmp_path, settings))
    assert [record["step"] for record in folder(tmp_path, settings).records()] == list(range(1, 13))


def test_the_logged_loss_is_the_mean_since_the_last_line(
    drawings: Drawings, small_encoder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, told = TrainSettings(**{**SMALL, "validate_every": 12}), []
    train(build(Case(), small_encoder), drawings[0], settings, watch=told.append)
    each = [record["loss"] for record in told]
    monkeypatch.setattr(LOOP, "LOG_EVERY", 5)
    told.clear()
    train(build(Case(), small_encoder), drawings[0], settings, watch=told.append)
    assert [record["step"] for record in told] == [5, 10, 12]
    assert [record["loss"] for record in told] == pytest.approx(
        [sum(each[:5]) / 5, sum(each[5:10]) / 5, sum(each[10:]) / 2]
    )
    assert {record["steps"] for record in told} == {12}


def test_the_global_generator_is_left_alone(drawings: Drawings, small_encoder: Make) -> None:
    method, before = build(Case("resnet12"), small_encoder), torch.get_rng_state()
    train(method, drawings[0], TrainSettings(**{**SMALL, "augment": "drawings"}), validation=drawings[1])
    assert torch.equal(torch.get_rng_state(), before)


class Diverging(ProtoNet):
    """Its loss, or only its gradient, stops being a number at a step."""

    def __init__(self, encoder: Encoder, at: int, value: str) -> None:
        super().__init__(encoder)
        self.at, self.value, self.digests = at, value, []

    def step(self, batch: TaskBatch, *, progress: float, generator: Generator) -> Step:
        loss = super().step(batch, progress=progress, generator=generator).loss
        self.digests.append(batch.digest)
        if len(self.digests) == self.at:
            zero = 0 * loss
            loss = {"nan": loss * math.nan, "inf": loss / zero, "gradient": loss + zero.square().sqrt()}[self.value]
        return Step(loss, {})


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("every", [1, 3, 20])
def test_a_loss_that_is_no_number_stops_the_training(
    drawings: Drawings, small_encoder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, every: int
) -> None:
    monkeypatch.setattr(LOOP, "LOG_EVERY", every)
    method, settings = Diverging(small_encoder(), 6, value), TrainSettings(**SMALL)
    with pytest.raises(DivergedError) as error:
        train(method, drawings[0], settings, validation=drawings[1], run=folder(tmp_path, settings))
    assert str(error.value).startswith(
        f"the loss is {value} at step 6 (batch {method.digests[5]}); the last good state"
    )
    assert str(tmp_path) in str(error.value)
    assert "try a smaller lr, clip=1.0" in str(error.value)
    check_good(tmp_path)


@pytest.mark.parametrize("at", [6, 8], ids=["between saves", "just before a save"])
def test_weights_that_are_no_numbers_are_never_saved(
    drawings: Drawings, small_encoder: Make, tmp_path: Path, at: int
) -> None:
    """A finite loss with a gradient that is not: the weights are lost although the loss of this step was logged."""
    method, settings = Diverging(small_encoder(), at, "gradient"), TrainSettings(**SMALL)
    with pytest.raises(DivergedError, match=f"(step|steps?) .*{at}|step {at + 1}"):
        train(method, drawings[0], settings, validation=drawings[1], run=folder(tmp_path, settings))
    check_good(tmp_path)


def check_good(path: Path) -> None:
    tensors, header = read_tensors(path / "state.safetensors")
    assert header["step"] == 4
    assert all(tensor.isfinite().all() for tensor in tensors.values() if tensor.is_floating_point())
    model = load_checkpoint(path / "model.safetensors").method.state_dict()
    assert all(tensor.isfinite().all() for tensor in model.values() if tensor.is_floating_point())


def test_without_a_folder_the_message_does_not_speak_of_one(drawings: Drawings, small_encoder: Make) -> None:
    with pytest.raises(DivergedError) as error:
        train(Diverging(small_encoder(), 2, "nan"), drawings[0], TrainSettings(**SMALL))
    assert "last good state" not in str(error.value)


def test_other_settings_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    settings = TrainSettings(**SMALL)
    with folder(tmp_path, TrainSettings(**SMALL, lr=0.1)).held():
        pass  # it failed before anything was saved, so the folder is the next one's
    with (run := folder(tmp_path, settings, data=DataRecord("glyphs", "train"))).held():
        run.save_state({}, {"step": 4})
    folder(tmp_path, settings, data=DataRecord("glyphs", "train"))
    with pytest.raises(MetarepError, match=r"holds a run with train.lr = 0.003, not 0.1; choose another out"):
        folder(tmp_path, TrainSettings(**SMALL, lr=0.1), data=DataRecord("glyphs", "train"))
    with pytest.raises(MetarepError, match=r"holds a run with data.split = 'train', not 'trainval'"):
        folder(tmp_path, settings, data=DataRecord("glyphs", "trainval"))
    with pytest.raises(MetarepError, match=r"holds a run with init = None, not 'mine'"):
        folder(tmp_path, settings, data=DataRecord("glyphs", "train"), init="mine")
    assert json.loads((tmp_path / "settings.json").read_text())["train"] == settings.as_dict()
    assert "torch" in json.loads((tmp_path / "environment.json").read_text())["packages"]
    for damaged in ("{", "null"):
        (tmp_path / "settings.json").write_text(damaged)
        with pytest.raises(MetarepError, match=r"settings.json (is damaged|does not hold).*choose another out"):
            folder(tmp_path, settings)


def test_a_folder_takes_one_training_at_a_time(drawings: Drawings, small_encoder: Make, tmp_path: Path) -> None:
    settings, messages = TrainSettings(**SMALL), list[str]()

    def again(_: dict[str, Any]) -> None:
        with pytest.raises(MetarepError) as refused:
            train(ProtoNet(small_encoder()), drawings[0], settings, run=folder(tmp_path, settings))
        messages.append(str(refused.value))

    train(ProtoNet(small_encoder()), drawings[0], settings, run=folder(tmp_path, settings), watch=again)
    assert set(messages) == {
        f"another process is training in {tmp_path}; wait until it has ended, or choose another out"
    }
    train(ProtoNet(small_encoder()), drawings[0], settings, run=folder(tmp_path, settings))


def test_the_version_is_known_without_an_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr("metarep.machine.device.version", absent)
    packages = environment()["packages"]
    assert packages["metarep"] == __version__
    assert packages["torch"] == "not installed"


@pytest.mark.parametrize("pulls", [(), (7,), (9, 12)], ids=["at once", "resumed", "resumed after the best"])
def test_the_best_step_on_validation_is_kept(
    drawings: Drawings, small_encoder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pulls: tuple[int, ...]
) -> None:
    weights: dict[int, dict[str, Tensor]] = {}

    class Keeping(ProtoNet):
        steps = 0

        def after_step(self, carry: Any, progress: float) -> None:
            weights[round(progress * 12) + 1] = {name: value.clone() for name, value in self.state_dict().items()}

    answers = {4: 50.0, 8: 70.0, 12: 70.0}
    monkeypatch.setattr(LOOP, "evaluate", lambda *a, **k: SimpleNamespace(accuracy=answers[max(weights)], ci95=1.0))
    *_, place = run(Case(method=Keeping), drawings, small_encoder, tmp_path, *pulls)
    method, outcome, place = run(Case(method=Keeping), drawings, small_encoder, tmp_path)
    assert (outcome.step, outcome.accuracy) == (8, 70.0), "of equal ones the first"
    assert same(method.state_dict(), weights[8])
    assert same(load_checkpoint(place.model).method.state_dict(), weights[8])
    assert not same(weights[8], weights[12])
    assert not method.training


def test_an_interrupted_training_leaves_its_best_step(
    drawings: Drawings, small_encoder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model on disk is the best so far; the last weights are in the state alone."""
    answers, settings = iter([70.0, 50.0]), TrainSettings(**SMALL)
    monkeypatch.setattr(LOOP, "evaluate", lambda *a, **k: SimpleNamespace(accuracy=next(answers), ci95=1.0))
    place, method = folder(tmp_path, settings), build(Case(), small_encoder)
    with pytest.raises(PulledError):
        train(method, drawings[0], settings, validation=drawings[1], run=place, watch=pull_at(9))
    tensors, header = read_tensors(tmp_path / "state.safetensors")
    assert (header["step"], header["best_step"]) == (8, 4)
    best, last = (
        {name.removeprefix(part): tensor for name, tensor in tensors.items() if name.startswith(part)}
        for part in ("best.", "method.")
    )
    assert same(load_checkpoint(place.model).method.state_dict(), best)
    assert not same(best, last)


def test_without_validation_the_last_weights_are_kept(drawings: Drawings, small_encoder: Make, tmp_path: Path) -> None:
    method, outcome, place = run(Case(validated=False), drawings, small_encoder, tmp_path)
    assert (outcome.step, outcome.accuracy) == (12, None)
    tensors, _ = read_tensors(tmp_path / "state.safetensors")
    assert same(
        method.state_dict(), {name[7:]: tensor for name, tensor in tensors.items() if name.startswith("method.")}
    )
    assert same(load_checkpoint(place.model).method.state_dict(), method.state_dict())


def test_validation_tasks_are_the_same_every_time_and_of_the_other_split(
    drawings: Drawings, small_encoder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def spy(learner: Any, bank: Any, tasks: Any, **_: Any) -> Any:
        seen.append((bank, tasks.digest, tasks.ways, len(tasks)))
        return SimpleNamespace(accuracy=1.0, ci95=1.0)

    monkeypatch.setattr(LOOP, "evaluate", spy)
    train(build(Case(), small_encoder), drawings[0], TrainSettings(**SMALL), validation=drawings[1])
    assert len(seen) == 3
    assert len({entry[1:] for entry in seen}) == 1
    assert all(bank is drawings[1].bank for bank, *_ in seen)
    assert seen[0][2:] == (20, 20)


def test_schedules_by_formula() -> None:
    steps = 200

    def rates(schedule: Any) -> list[float]:
        settings = TrainSettings(steps=steps, lr=0.5, schedule=schedule)
        return [settings.lr_at(step) for step in range(steps)]

    assert set(rates("constant")) == {0.5}
    for step, rate in enumerate(rates("cosine")):
        low = 0.5 * 1e-4
        assert rate == pytest.approx(low + (0.5 - low) * (1 + math.cos(math.pi * step / steps)) / 2)
    torch_rates, weight = [], torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], 0.5)
    # Torch puts the peak of its cycle on step pct * total - 1 and the end on total - 1; ours on 0.25 * total and total.
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.5, total_steps=steps + 1, pct_start=51 / 201, div_factor=25, final_div_factor=400,
        cycle_momentum=False,
    )  # fmt: skip
    for _ in range(steps):
        torch_rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        cycle.step()
    assert rates("one-cycle") == pytest.approx(torch_rates)


def test_the_optimiser_gets_the_rate_of_the_schedule(drawings: Drawings, small_encoder: Make) -> None:
    got: list[float] = []
    method = build(Case(), small_encoder)
    optimizer = method.optimizer(1.0, 0.1)
    optimizer.register_step_pre_hook(lambda o, *_: got.extend({group["lr"] for group in o.param_groups}))
    method.optimizer = lambda lr, decay: optimizer  # type: ignore[method-assign]
    settings = TrainSettings(**SMALL, lr=0.01)
    train(method, drawings[0], settings)
    assert got == [settings.lr_at(step) for step in range(12)]


def test_clipping_bounds_the_gradient(drawings: Drawings, small_encoder: Make) -> None:
    norms: dict[float, list[float]] = {}
    for clip in (0.0, 0.01):
        method, norms[clip] = build(Case(), small_encoder), []
        optimizer = method.optimizer(1.0, 0.0)

        def note(o: torch.optim.Optimizer, *_: Any, into: list[float] = norms[clip]) -> None:
            every = [p.grad.flatten() for group in o.param_groups for p in group["params"]]
            into.append(torch.cat(every).norm().item())

        optimizer.register_step_pre_hook(note)
        method.optimizer = lambda lr, decay, optimizer=optimizer: optimizer  # type: ignore[method-assign]
        train(method, drawings[0], TrainSettings(**SMALL, clip=clip))
    assert min(norms[0.0]) > 0.01
    assert norms[0.01] == pytest.approx([0.01] * 12, rel=1e-3)


def test_augmented_views_reach_the_method_in_training_mode(drawings: Drawings, small_encoder: Make) -> None:
    images: list[Tensor] = []

    class Looking(Siamese):
        def step(self, batch: LabelledBatch, *, progress: float, generator: Generator) -> Step:
            images.append(batch.images)
            assert progress == (len(images) - 1) / 12
            assert all(layer.training for layer in self.modules()), "after a validation too"
            return super().step(batch, progress=progress, generator=generator)

    settings = TrainSettings(**{**SMALL, "augment": "drawings"})
    train(Looking(small_encoder()), drawings[0], settings, validation=drawings[1])
    assert len(images) == 12
    assert images[0].is_floating_point()
    assert images[0].max() <= 1


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"lr": 0.0}, "lr must be above 0, not 0.0"),
        ({"lr": math.nan}, "lr must be above 0, not nan"),
        ({"queries": -1}, "queries must be at least .*, not -1"),
        ({"clip": -1.0}, "clip must be at least 0, not -1.0"),
        ({"clip": math.nan}, "clip must be at least 0, not nan"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0, not -0.1"),
        ({"validation_ways": 1}, "validation_ways must be at least 2, not 1"),
        ({"schedule": "cosin"}, "'cosin'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises((MetarepError, TypeCheckError), match=text):  # the latter where annotations are checked
        TrainSettings(**settings)


def test_unknown_augmentations_and_too_large_batches_are_refused(drawings: Drawings, small_encoder: Make) -> None:
    with pytest.raises(MetarepError, match="unknown augmentation 'drawing'"):
        train(build(Case(), small_encoder), drawings[0], TrainSettings(**{**SMALL, "augment": "drawing"}))
    with pytest.raises(MetarepError, match="need 41 classes of at least 4 images"):
        train(build(Case(), small_encoder), drawings[0], TrainSettings(**{**SMALL, "ways": 41}))


def test_batches_without_queries_or_pairs_are_refused_before_they_give_a_loss_of_nan_or_zero(
    drawings: Drawings, small_encoder: Make
) -> None:
    with pytest.raises(MetarepError, match="queries") as error:
        train(build(Case(), small_encoder), drawings[0], TrainSettings(**{**SMALL, "queries": 0}))
    assert not isinstance(error.value, DivergedError)
    with pytest.raises(MetarepError, match="at least 2 images a class to make pairs, not shots=1"):
        train(build(Case(method=Siamese), small_encoder), drawings[0], TrainSettings(**{**SMALL, "shots": 1}))
