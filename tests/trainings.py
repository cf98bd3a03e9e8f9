"""Short trainings in a run folder, which may be interrupted and resumed: for tests of the training loop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from metarep.data.split import Split
from metarep.encoders import Encoder
from metarep.experiments.run_folder import RunFolder
from metarep.experiments.training import Outcome, train
from metarep.methods import Method, ProtoNet
from metarep.weights.record import RunRecord
from metarep.weights.settings import TrainSettings

Drawings = tuple[Split, Split]


Make = Callable[..., Encoder]


SMALL: dict[str, Any] = {"steps": 12, "ways": 6, "shots": 2, "queries": 2, "validate_every": 4, "validation_tasks": 20}


OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "AMSGrad": lambda p, lr, decay: torch.optim.AdamW(p, lr, weight_decay=decay, amsgrad=True),
    "SGD": lambda p, lr, decay: torch.optim.SGD(p, lr, weight_decay=decay),
    "SGD with momentum": lambda p, lr, decay: torch.optim.SGD(p, lr, momentum=0.9, nesterov=True, weight_decay=decay),
    "RMSprop": lambda p, lr, decay: torch.optim.RMSprop(p, lr, momentum=0.9, centered=True, weight_decay=decay),
    "Adagrad": lambda p, lr, decay: torch.optim.Adagrad(p, lr, weight_decay=decay),
}


CLOCK = ("images_per_second", "seconds_left", "seconds", "digest")  # the digest of a state covers its seconds


class PulledError(Exception):
    """The interruption of a training."""


class Case(NamedTuple):
    encoder: str = "conv4"
    optimiser: str | None = None
    validated: bool = True
    method: type[Method] = ProtoNet
    augment: str = "none"


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
    """A training in a folder, interrupted at each of ``pulls`` and resumed with new objects."""
    settings = TrainSettings(**{**SMALL, "augment": case.augment})
    validation = drawings[1] if case.validated else None
    for stop in pulls:
        with pytest.raises(PulledError):
            train(
                build(case, make), drawings[0], settings,
                validation=validation, run=folder(path, settings), watch=pull_at(stop),
            )  # fmt: skip
    method, last = build(case, make), folder(path, settings)
    return method, train(method, drawings[0], settings, validation=validation, run=last), last


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
