"""train: the best step is kept, a training that diverges is stopped, and settings have their effect."""

import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError
from thinning import few
from torch import Generator, Tensor
from trainings import SMALL, Case, Drawings, Make, PulledError, build, folder, pull_at, run, same

from metarep.data.batch import LabelledBatch, TaskBatch
from metarep.encoders import Encoder
from metarep.errors import MetarepError
from metarep.experiments.readings import DivergedError
from metarep.experiments.training import train
from metarep.machine.files import read_tensors
from metarep.methods import ProtoNet, Siamese, Step
from metarep.weights.checkpoint import load_checkpoint
from metarep.weights.settings import TrainSettings

LOOP = sys.modules[train.__module__]


@pytest.fixture(autouse=True)
def every_step_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOOP, "LOG_EVERY", 1)


@pytest.mark.slow
def test_the_logged_loss_is_the_mean_since_the_last_line(
    drawings: Drawings, small_encoder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, records = TrainSettings(**{**SMALL, "validate_every": 12}), []
    train(build(Case(), small_encoder), drawings[0], settings, watch=records.append)
    each = [record["loss"] for record in records]
    monkeypatch.setattr(LOOP, "LOG_EVERY", 5)
    records.clear()
    train(build(Case(), small_encoder), drawings[0], settings, watch=records.append)
    assert [record["step"] for record in records] == [5, 10, 12]
    assert [record["loss"] for record in records] == pytest.approx(
        [sum(each[:5]) / 5, sum(each[5:10]) / 5, sum(each[10:]) / 2]
    )
    assert {record["steps"] for record in records} == {12}


@pytest.mark.slow
def test_the_global_generator_is_left_alone(drawings: Drawings, small_encoder: Make) -> None:
    method, before = build(Case("resnet12"), small_encoder), torch.get_rng_state()
    train(method, drawings[0], TrainSettings(**{**SMALL, "augment": "drawings"}), validation=drawings[1])
    assert torch.equal(torch.get_rng_state(), before)


class Diverging(ProtoNet):
    """A method whose loss, or only whose gradient, is NaN or infinite at one step."""

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


@pytest.mark.slow
@pytest.mark.parametrize("case", few([("nan", 1), ("inf", 3), ("nan", 20), ("inf", 1), ("nan", 3), ("inf", 20)], 3))
def test_a_loss_that_is_nan_or_infinite_stops_the_training(
    drawings: Drawings, small_encoder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: tuple[str, int]
) -> None:
    value, every = case
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


@pytest.mark.slow
@pytest.mark.parametrize("at", [6, 8], ids=["between saves", "just before a save"])
def test_weights_that_are_nan_or_infinite_are_never_saved(
    drawings: Drawings, small_encoder: Make, tmp_path: Path, at: int
) -> None:
    """A finite loss can have a gradient that is not: the loss of the step is logged, and its weights are lost."""
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
        ({"lr": 0.0}, "lr must be a finite number above 0, not 0.0"),
        ({"lr": math.nan}, "lr must be a finite number above 0, not nan"),
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
