"""Bodies that draw from global generators: the seed names the run, resumed or not, on one and on two threads."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metarep.encoders import Encoder
from metarep.experiments.run_folder import RunFolder
from metarep.experiments.training import train
from metarep.machine import randomness
from metarep.machine.files import read_tensors
from metarep.methods import Method, build_method
from metarep.weights.record import RunRecord
from metarep.weights.settings import TrainSettings

SETTINGS: dict[str, Any] = {
    "ways": 3,
    "shots": 2,
    "queries": 2,
    "tasks": 3,
    "steps": 4,
    "validate_every": 2,
    "images": 16,
}


class PulledError(Exception):
    """The plug."""


class LayerDrop(nn.Module):
    """Draws from torch and NumPy, as layers of transformers do. Not from Python, from which type checkers draw."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        x = x * x.new_empty(len(x), 1, 1, 1).bernoulli_(0.8)
        x = x if np.random.rand() < 0.3 else x * (1 + np.random.rand())  # noqa: NPY002
        return x * torch.rand(x.shape[1]).view(-1, 1, 1)


def build(kind: str, preprocess: Any) -> Method:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = nn.Sequential(
            nn.Conv2d(1, 4, 5, 3), LayerDrop(), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2),
            nn.Linear(144, 6),
        )  # fmt: skip
        settings = {"maml": {"ways": 3}, "reptile": {"ways": 3, "inner_steps": 2}, "byol": {"hidden": 8}}
        return build_method(kind, Encoder(body, preprocess), settings.get(kind, {}))


def run(kind: str, drawings: Any, preprocess: Any, path: Path, pull: int = 0) -> tuple[dict[str, Tensor], Any]:
    """The end of a training, and its state on disk; pulled once at a step, if that is asked for."""
    method = build(kind, preprocess)
    settings = TrainSettings(**SETTINGS, augment="views-drawings" if kind == "byol" else "none")
    folder = RunFolder(path, RunRecord(kind, train=settings), ["aaa"])

    def watch(record: dict[str, Any]) -> None:
        if record["step"] == pull:
            raise PulledError

    if pull:
        with pytest.raises(PulledError):
            train(method, drawings[0], settings, run=folder, watch=watch)
        torch.rand(7), random.random(), np.random.rand()  # noqa: NPY002 - another process is somewhere else
        return run(kind, drawings, preprocess, path)
    train(method, drawings[0], settings, run=folder, watch=watch)
    return method.state_dict(), read_tensors(path / "state.safetensors")[0]


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(1)


CASES = [("maml", 1), ("maml", 2), ("reptile", 2), ("protonet", 1), ("byol", 1)]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "threads"), CASES, indirect=["threads"])
def test_a_seed_fixes_the_random_numbers_of_a_resumed_run_too(
    kind: str, threads: int, drawings: Any, preprocess: Any, tmp_path: Path
) -> None:
    before = torch.get_rng_state()
    whole, saved = run(kind, drawings, preprocess, tmp_path / "whole")
    assert torch.equal(torch.get_rng_state(), before), "whoever trains finds the global generator as it was"
    pieces, again = run(kind, drawings, preprocess, tmp_path / "pieces", pull=4)
    for one, other in ((whole, pieces), (saved, again)):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_global_generators_are_restored() -> None:
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    with randomness.set_aside(torch.device("cpu")):
        randomness.seed_step(0, 1)
    now = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(now[0], states[0])
    assert now[1:] == states[1:]


def test_a_step_draws_other_numbers_than_the_one_before() -> None:
    found = []
    for step in range(3):
        randomness.seed_step(0, step)
        found.append((torch.rand(()).item(), random.random(), np.random.rand()))  # noqa: NPY002
    assert all(len(set(drawn)) == 3 for drawn in zip(*found, strict=True))


def test_a_network_that_draws_is_recognised_by_its_generators(monkeypatch: pytest.MonkeyPatch) -> None:
    """First on threads; since that moved a generator, again on one. Whoever draws nothing stays on threads."""
    monkeypatch.setattr(random, "getstate", lambda: None)  # type checkers draw from Python's
    monkeypatch.setattr(random, "setstate", lambda state: None)
    torch.set_num_threads(2)
    try:
        for draws in (True, False):
            body, done = nn.Linear(1, 1).train(), list[int]()

            def work(worker: int, item: int, draws: bool = draws, done: list[int] = done) -> float:
                done.append(worker)
                return torch.rand(()).item() if draws else float(item)

            torch.manual_seed(0)
            want = [torch.rand(()).item() for _ in range(4)] if draws else [0.0, 1.0, 2.0, 3.0]
            torch.manual_seed(0)
            assert randomness.run_alike(body, work, range(4), 2) == want
            assert set(done[-4:]) == ({0} if draws else {0, 1})
            assert randomness.useful_workers(body, torch.device("cpu")) == (1 if draws else 2)
            assert randomness.useful_workers(body.eval(), torch.device("cpu")) == 2
    finally:
        torch.set_num_threads(1)
