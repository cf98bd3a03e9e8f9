"""Randomness of networks that others made: what their layers draw from, and how a seed names it.

Our own draws come from a generator that is an argument. ``nn.Dropout``, a stochastic depth and the like draw from the
global generators of torch, NumPy or Python instead.
"""

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Generator, nn

from metarep.workers import run_tasks

In = TypeVar("In")
Out = TypeVar("Out")

_drawing: WeakKeyDictionary[nn.Module, set[bool]] = (
    WeakKeyDictionary()
)  # in which modes a network has been seen to draw


class Draws(nn.Module):
    """A layer that draws random numbers from a generator it is given, as long as it is in training mode.

    Attributes:
        generator: what it draws from; None for torch's global generator. ``train`` sets it, so that a resumed run
            draws the same numbers.
    """

    generator: Generator | None = None


@contextmanager
def set_aside(device: torch.device) -> Iterator[None]:
    """Global generators may be seeded and drawn from in here; whoever is outside finds them as they were."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - what layers of others draw from
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002


def seed_step(seed: int, step: int) -> None:
    """Seed the global generators for one step of a training.

    What a step draws depends on the seed and its number alone, so a resumed training draws what an uninterrupted one
    does, and no state has to be saved.

    >>> seed_step(0, 7)
    >>> first = torch.rand(())
    >>> seed_step(0, 7)
    >>> bool(torch.rand(()) == first)
    True
    """
    digest = hashlib.blake2b(f"{seed} {step}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "little")
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002


def hand_over(generator: Generator, network: nn.Module) -> None:
    """Let every layer that is one of :class:`Draws` draw from this generator."""
    for layer in network.modules():
        if isinstance(layer, Draws):
            layer.generator = generator


def useful_workers(body: nn.Module, device: torch.device) -> int:
    """Processor threads that can take tasks.

    One on an accelerator, and where a network has been seen to draw random numbers, whose order threads cannot vouch
    for.
    """
    return 1 if device.type != "cpu" or body.training in _drawing.get(body, ()) else torch.get_num_threads()


def run_alike(body: nn.Module, work: Callable[[int, In], Out], items: Iterable[In], workers: int) -> list[Out]:
    """As :func:`metarep.workers.run_tasks`, with the same result whatever thread is first, draws of ``body`` included.

    Whether it draws is seen by its generators. If they have moved, all is taken back and done again on one thread, and
    the network is remembered as one that draws.
    """
    queue = list(items)
    if min(workers, len(queue)) > 1:
        before = _States(body)
        found = run_tasks(work, queue, workers)
        if before.same():
            return found
        before.restore()
        _drawing.setdefault(body, set()).add(body.training)
    return run_tasks(work, queue, 1)


class _States:
    """Of everything that a network may draw from."""

    def __init__(self, body: nn.Module) -> None:
        held = {id(value): value for layer in body.modules() for value in vars(layer).values() if _is_generator(value)}
        self.generators: list[Generator] = [torch.default_generator, *held.values()]
        self.of_torch, self.python, self.legacy = self._now()

    def same(self) -> bool:
        of_torch, python, legacy = self._now()
        same = all(torch.equal(one, other) for one, other in zip(of_torch, self.of_torch, strict=True))
        return same and python == self.python and legacy == self.legacy

    def restore(self) -> None:
        for generator, state in zip(self.generators, self.of_torch, strict=True):
            generator.set_state(state)
        random.setstate(self.python)
        kind, keys, *rest = self.legacy
        np.random.set_state((kind, np.frombuffer(keys, dtype=np.uint32), *rest))  # noqa: NPY002

    def _now(self) -> tuple[list[torch.Tensor], Any, tuple[Any, ...]]:
        kind, keys, *rest = np.random.get_state()  # noqa: NPY002
        return (
            [generator.get_state() for generator in self.generators],
            random.getstate(),
            (kind, np.asarray(keys).tobytes(), *rest),
        )


def _is_generator(value: object) -> bool:
    return isinstance(value, Generator) and value.device.type == "cpu"
