"""Small contrastive methods, batches of views, labels that nobody may look at: for tests of what needs no labels."""

from typing import Any

import torch
from torch import Generator, Tensor

from metarep.data.augment import preset
from metarep.data.batch import ViewBatch
from metarep.data.batches import draw_batch
from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.encoders import Encoder
from metarep.methods import METHODS
from metarep.weights.settings import TrainSettings

VIEWS = {name: kind for name, kind in METHODS.items() if kind.eats is ViewBatch}
SMALL: dict[str, Any] = {
    "steps": 6, "images": 16, "augment": "views-drawings", "validate_every": 2, "validation_tasks": 10,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "simclr": {"hidden": 16, "outputs": 8},
    "moco": {"hidden": 16, "outputs": 8, "queue": 40, "momentum": 0.9},
    "byol": {"hidden": 16, "outputs": 8, "tau": 0.9},
    "supcon": {"hidden": 16, "outputs": 8},
}


def wide(n: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=Generator().manual_seed(seed), dtype=torch.float64)


def make(name: str, encoder: Encoder, **settings: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return METHODS[name](encoder, **OWN[name], **settings).train()


def views(split: Split, n: int = 16, seed: int = 0, **how: Any) -> Any:
    shape = TrainSettings(images=n).shape
    augment = how.get("augment", preset("views-drawings"))
    return draw_batch(
        ViewBatch, split.bank, how.get("labels", split.labels), shape, augment, Generator().manual_seed(seed)
    )


def advance(method: Any, split: Split, seed: int = 0, progress: float = 0.0) -> Any:
    """One whole step of training; gives what the method's step gave."""
    step = method.step(views(split, seed=seed), progress=progress, generator=Generator())
    method.zero_grad()
    step.loss.backward()
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    method.after_step(step.carry, progress)
    return step


class Sealed(Labels):
    """Labels that nobody may look at."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return super().__getattribute__(name)
        raise AssertionError(f"the labels were read: {name}")


def sealed() -> Labels:
    return object.__new__(Sealed)


class Named(Labels):
    """Labels of which only the names may be read, which say what must not be measured on; not who is in which class."""

    def __getattribute__(self, attribute: str) -> Any:
        assert attribute not in ("classes", "counts", "rows", "starts", "groups", "digest"), "the labels were read"
        return super().__getattribute__(attribute)


def named(labels: Labels) -> Labels:
    hidden = object.__new__(Named)
    for field in ("names", "keys"):
        object.__setattr__(hidden, field, getattr(labels, field))
    return hidden
