"""The state of a training as named tensors, for saving and resuming."""

import torch
from torch import Generator, Tensor
from torch.optim import Optimizer

from metarep.methods import Method


def pack(method: Method, best: dict[str, Tensor], optimizer: Optimizer, generator: Generator) -> dict[str, Tensor]:
    """The state of a training in one flat dictionary of tensors.

    Args:
        method: its weights and buffers are saved.
        best: the weights with the best validation accuracy so far, by name; empty if there are none.
        optimizer: its state is saved, such as the moments of Adam.
        generator: the generator of batches and views.

    Returns:
        Tensors by name; the names begin with ``method.``, ``best.`` or ``optimizer.``, or are ``generator``.
    """
    tensors = {f"method.{name}": value for name, value in method.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    for row, state in optimizer.state_dict()["state"].items():
        tensors |= {
            f"optimizer.{row}.{name}": torch.as_tensor(value) for name, value in state.items() if value is not None
        }
    return tensors | {"generator": generator.get_state()}


def unpack(tensors: dict[str, Tensor], method: Method, optimizer: Optimizer, generator: Generator) -> dict[str, Tensor]:
    """Restore the method, the optimiser and the generator from the tensors of :func:`pack`.

    Args:
        tensors: from :func:`pack`.
        method, optimizer, generator: changed in place.

    Returns:
        The best weights so far, by name.
    """
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
