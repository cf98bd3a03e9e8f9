"""Random numbers in third-party networks: seeding the global generators, and equal results on several threads.

This library draws from generators that are passed as arguments. ``nn.Dropout``, stochastic depth and similar layers
draw from the global generators of torch, NumPy or Python instead.
"""

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Generator, Tensor, nn

from metarep.machine.deterministic import task_threads
from metarep.machine.ranks import rank, ranks
from metarep.machine.threads import run_tasks

In = TypeVar("In")
Out = TypeVar("Out")

# Networks that were seen to draw random numbers: in which modes (True: training).
_drawing: WeakKeyDictionary[nn.Module, set[bool]] = WeakKeyDictionary()


class Draws(nn.Module):
    """A layer that draws random numbers from a generator it is given, as long as it is in training mode.

    Attributes:
        generator: what it draws from; None for torch's global generator. ``train`` sets it, so that a resumed run
            draws the same numbers.
        images: the positions of this process's images in the batch, and the number of images of all processes. Each
            process draws for all of them and takes its own, so they draw the same numbers as a single process. None
            where tasks pass one by one, and a process draws for its own alone.
    """

    generator: Generator | None = None
    images: tuple[slice, int] | None = None

    def rand(self, *shape: int) -> Tensor:
        """Uniform random numbers for this process's part of a batch; the first axis of ``shape`` is that of images."""
        if ranks() == 1:
            return torch.rand(shape, generator=self.generator)
        if self.images is None or not self.whole(shape[0]):
            return torch.rand(shape)  # from torch's global generator, which each process has seeded for itself
        own, total = self.images
        views = shape[0] // (own.stop - own.start)  # a batch of two views has its images twice
        drawn = torch.rand(views, total, *shape[1:], generator=self.generator)
        return drawn[:, own].reshape(shape)

    def whole(self, n: int) -> bool:
        """Whether ``n`` images are all of this process's images in a batch, and not a task or group of them."""
        if ranks() == 1 or self.images is None:
            return False
        own, _ = self.images
        return n > 0 and n % (own.stop - own.start) == 0


@contextmanager
def set_aside(device: torch.device) -> Iterator[None]:
    """A context in which the global generators may be seeded and drawn from; their states are restored at its end.

    Args:
        device: a CUDA device, whose generator is restored too; or the CPU.

    >>> before = torch.get_rng_state()
    >>> with set_aside(torch.device("cpu")):
    ...     _ = torch.manual_seed(0), torch.rand(3)
    >>> torch.equal(torch.get_rng_state(), before)
    True
    """
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - third-party layers draw from it
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002


def seed_step(seed: int, step: int) -> None:
    """Seed the global generators of torch, Python and NumPy for one training step.

    The random numbers of a step then depend only on the seed and on the number of the step. So a resumed training draws
    the same numbers as an uninterrupted one, and no generator state has to be saved. Of several processes, each draws
    other numbers, because it has other images.

    >>> seed_step(0, 7)
    >>> first = torch.rand(())
    >>> seed_step(0, 7)
    >>> bool(torch.rand(()) == first)
    True
    """
    own = f" {rank()}" if rank() else ""
    digest = hashlib.blake2b(f"{seed} {step}{own}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "little")
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002


def hand_over(generator: Generator, network: nn.Module, images: tuple[slice, int] | None = None) -> None:
    """Let every layer that is one of :class:`Draws` draw from this generator.

    Args:
        generator: a CPU generator.
        network: its layers are changed.
        images: see :class:`Draws`.
    """
    for layer in network.modules():
        if isinstance(layer, Draws):
            layer.generator, layer.images = generator, images


def useful_workers(body: nn.Module, device: torch.device) -> int:
    """The number of CPU threads that may work on tasks at the same time.

    It is 1 on an accelerator, and 1 for a network that was seen to draw random numbers, because the order of the draws
    would depend on the threads.
    """
    return 1 if device.type != "cpu" or body.training in _drawing.get(body, ()) else task_threads()


def run_alike(body: nn.Module, work: Callable[[int, In], Out], items: Iterable[In], workers: int) -> list[Out]:
    """Run tasks on several threads with the same result as on one thread, even if ``body`` draws random numbers.

    The states of the generators are compared before and after. If ``body`` has drawn random numbers, the states are
    restored, all tasks run again on one thread, and the network is remembered as one that draws.

    Args:
        body: the network that ``work`` uses.
        work, items, workers: see :func:`metarep.machine.threads.run_tasks`.

    Returns:
        The result of each item, in order.

    >>> run_alike(nn.Identity(), lambda worker, item: item * 10, [1, 2, 3], 2)
    [10, 20, 30]
    """
    queue = list(items)
    if min(workers, len(queue)) > 1:
        before = _States(body)
        results = run_tasks(work, queue, workers)
        if before.same():
            return results
        before.restore()
        _drawing.setdefault(body, set()).add(body.training)
    return run_tasks(work, queue, 1)


class _States:
    """The states of all generators that a network may draw from: the global ones and those in its modules."""

    def __init__(self, body: nn.Module) -> None:
        held = {id(value): value for layer in body.modules() for value in vars(layer).values() if _is_generator(value)}
        self.generators: list[Generator] = [torch.default_generator, *held.values()]
        self.of_torch, self.python, self.legacy = self._now()

    def same(self) -> bool:
        """Whether all generators still have these states."""
        of_torch, python, legacy = self._now()
        same = all(torch.equal(one, other) for one, other in zip(of_torch, self.of_torch, strict=True))
        return same and python == self.python and legacy == self.legacy

    def restore(self) -> None:
        """Set all generators back to these states."""
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
