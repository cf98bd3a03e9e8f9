"""TrainingState: the state of a training, and its form as named tensors, for saving and resuming."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor
from torch.optim import Optimizer

from metarep.experiments.hard_classes import HardClasses
from metarep.methods import Method


@dataclass
class TrainingState:
    """Everything that a training changes from step to step.

    Args:
        method: its weights and buffers are part of the state.
        optimizer: its moments and counters are part of the state.
        generator: the generator of batches and views.
        miner: the index of classes, if classes are mined; None otherwise.
        step: number of steps done.
        validated: the last step after which the weights were validated; 0 if they never were.
        seconds: time of training and validation in seconds, added up over all interruptions.
        best: the weights with the best validation accuracy so far, by name; empty if there are none.
        best_step: the step of these weights; 0 if nothing was validated.
        best_accuracy: their validation accuracy in percent; None if nothing was validated.
    """

    method: Method
    optimizer: Optimizer
    generator: Generator
    miner: HardClasses | None = None
    step: int = 0
    validated: int = 0
    seconds: float = 0.0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_step: int = 0
    best_accuracy: float | None = None

    def keep_best(self, accuracy: float) -> None:
        """Keep a copy of the weights of this step as the best so far."""
        self.best_step, self.best_accuracy = self.step, accuracy
        self.best = {name: value.detach().clone() for name, value in self.method.state_dict().items()}

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The state as tensors by name, and as a header of values that JSON can hold.

        Names of tensors begin with ``method.``, ``best.`` or ``optimizer.``, or are ``generator`` or ``miner.near``.
        """
        tensors = {f"method.{name}": value for name, value in self.method.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for row, state in self.optimizer.state_dict()["state"].items():
            tensors |= {
                f"optimizer.{row}.{name}": torch.as_tensor(value) for name, value in state.items() if value is not None
            }
        tensors["generator"] = self.generator.get_state()
        if self.miner and self.miner.ready:
            tensors["miner.near"] = self.miner.near
        header = {
            "step": self.step,
            "validated": self.validated,
            "seconds": self.seconds,
            "best_step": self.best_step,
            "best_accuracy": self.best_accuracy,
        }
        return tensors, header

    def unpack(self, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        """Restore the state from what :meth:`pack` returned; everything is changed in place."""
        self.method.load_state_dict(_part(tensors, "method."))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _part(tensors, "optimizer.").items():
            row, entry = name.split(".")
            state.setdefault(int(row), {})[entry] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.generator.set_state(tensors["generator"])
        if self.miner and "miner.near" in tensors:
            self.miner.near = tensors["miner.near"]
        self.step, self.seconds = header["step"], header["seconds"]
        self.validated = header.get("validated", self.step)  # earlier versions saved only after a validation
        self.best_step, self.best_accuracy = header["best_step"], header["best_accuracy"]
        self.best = _part(tensors, "best.")


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
