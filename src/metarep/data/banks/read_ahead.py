"""ReadAhead: a bank that reads the images of the next batch from disk while the current batch is trained on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from jaxtyping import Int, UInt8
from torch import Generator, Tensor

from metarep.data.banks.mapped import RANDOM, WILLNEED, MappedImages
from metarep.data.images import ImageBank
from metarep.data.local_bank import LocalBank
from metarep.errors import counted
from metarep.machine.device import available_bytes

GIVE_UP = 3  # wrong predictions in a row, after which no batch is read ahead any more


class ReadAhead(ImageBank):
    """A mapped bank with a thread that reads rows before they are requested.

    It never changes what is read. If other rows are requested than were expected, they are read then, and the images
    that were read ahead are dropped.

    Args:
        bank: a bank of mapped images.
    """

    def __init__(self, bank: ImageBank) -> None:
        super().__init__(bank.stored, bank.device)
        self._set(None, 0)
        object.__setattr__(self, "_thread", ThreadPoolExecutor(1, "metarep-read-ahead"))

    _thread: ThreadPoolExecutor
    _next: tuple[Tensor, Future] | None
    _misses: int

    def _set(self, expected: tuple[Tensor, Future] | None, misses: int) -> None:
        object.__setattr__(self, "_next", expected)  # the dataclass is frozen, and this is not one of its fields
        object.__setattr__(self, "_misses", misses)

    @property
    def expecting(self) -> bool:
        """Whether to read further batches ahead: False after ``GIVE_UP`` wrong predictions in a row."""
        return self._misses < GIVE_UP

    def expect(self, rows: Int[Tensor, " n"]) -> None:
        """Start to read the images at these rows, which will probably be requested next."""
        self._set((rows, self._thread.submit(self._read, rows)), self._misses)

    def read(self, rows: Int[Tensor, " n"]) -> UInt8[Tensor, "n c h w"]:
        """Return the images that were read ahead if they are those at ``rows``; otherwise read them now."""
        if self._next is None:
            return self._read(rows)
        (expected, future), misses = self._next, self._misses
        hit = torch.equal(expected, rows)
        self._set(None, 0 if hit else misses + 1)
        return future.result() if hit else self._read(rows)

    def _read(self, rows: Int[Tensor, " n"]) -> UInt8[Tensor, "n c h w"]:
        self.fetch(rows)  # the disk gets all requests at once, and not one after the other
        return super().read(rows)


class _PixelsRequestedError(Exception):
    """Ends the drawing of a batch where it reads pixels. It carries the rows that would be read."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows


class _WithoutPixels(ImageBank):
    """A bank that reads no pixels. A request for pixels raises an error with the requested rows."""

    def pixels(self, index: Tensor) -> Tensor:
        raise _PixelsRequestedError(index)


def read_ahead(bank: ImageBank, draw: Callable[[ImageBank, Generator], object], generator: Generator) -> None:
    """Start to read the images of the next batch, if the bank is one that reads ahead.

    The next batch is drawn from a copy of the generator, up to its pixels; the state of the generator does not change.
    If the step between the two draws random numbers, the next batch is another one, and is read when it is drawn.

    Args:
        bank: the bank.
        draw: draws a batch from a bank by a generator.
        generator: the generator, after the current batch was drawn.
    """
    inner, first = (bank.own, bank.first) if isinstance(bank, LocalBank) else (bank, 0)
    if not isinstance(inner, ReadAhead) or not inner.expecting:
        return
    copy = Generator()
    copy.set_state(generator.get_state())
    try:
        draw(_WithoutPixels(bank.stored, bank.device), copy)
    except _PixelsRequestedError as request:
        inner.expect(request.rows - first)


def placed(bank: ImageBank, device: torch.device | str) -> tuple[ImageBank, str]:
    """Put a bank where a training draws its batches from, by its size.

    Images in shards go to the GPU if they take at most half of its free memory. If they fit into half of the memory of
    the machine, the system is asked to read them into its page cache. Otherwise they stay on disk, the system is told
    that rows are read at random, and the next batch is read ahead by a thread.

    Args:
        bank: any bank.
        device: the device to train on.

    Returns:
        The bank, and where its images are, in words; no words for a bank in one tensor.

    >>> placed(ImageBank(torch.zeros(50, 1, 8, 8, dtype=torch.uint8)), "cpu")[1]
    ''
    """
    if isinstance(bank, LocalBank):
        own, where = placed(bank.own, device)
        return LocalBank.of(own, bank.first, bank.total), where
    if not isinstance(bank.stored, MappedImages):
        return bank.to(device), ""
    size = f"{bank.stored.nbytes / 1e9:.2f} GB of images in {counted(len(bank.stored.parts), 'shard')}"
    bank, fits = bank.to(device), bank.stored.nbytes <= available_bytes() // 2
    if not isinstance(bank.stored, MappedImages):
        return bank, f"{size}: all on {device}"
    bank.stored.advise(WILLNEED if fits else RANDOM)
    if fits and torch.device(bank.device).type == "cpu":
        return bank, f"{size}: mapped, and fit into memory"
    return ReadAhead(bank), f"{size}: mapped, and read ahead from {'memory' if fits else 'disk'}"
