"""What a training is at a step, as named tensors: what resuming needs, and nothing that follows from it."""

import torch
from torch import Generator, Tensor
from torch.optim import Optimizer

from metarep.methods import Method


def pack(method: Method, best: dict[str, Tensor], optimizer: Optimizer, generator: Generator) -> dict[str, Tensor]:
    """The state of all of these in one flat dictionary; ``best`` are the weights that validation liked best so far."""
    tensors = {f"method.{name}": value for name, value in method.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    for row, state in optimizer.state_dict()["state"].items():
        tensors |= {
            f"optimizer.{row}.{name}": torch.as_tensor(value) for name, value in state.items() if value is not None
        }
    return tensors | {"generator": generator.get_state()}


def unpack(tensors: dict[str, Tensor], method: Method, optimizer: Optimizer, generator: Generator) -> dict[str, Tensor]:
    """Put method, optimiser and generator into the state that was packed; returns the best weights."""
    method.load_state_dict(_part(tensors, "method."))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _part(tensors, "optimizer.").items():
        row, field = name.split(".")
        state.setdefault(int(row), {})[field] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    generator.set_state(tensors["generator"])
    return _part(tensors, "best.")


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
