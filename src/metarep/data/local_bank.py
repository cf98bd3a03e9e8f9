"""LocalBank: the images that one of several processes holds, with the rows that they have in the whole data set."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

import torch
from jaxtyping import Int, Shaped, UInt8
from torch import Tensor

from metarep.data.images import ImageBank
from metarep.errors import DataError
from metarep.machine.ranks import gather_values


@dataclass(frozen=True)
class LocalBank(ImageBank):
    """A bank of which this process holds some neighbouring rows, and the other processes hold the others.

    Args:
        first: the row of the first image that this process holds; these are ``stored``.
        total: the number of images that all processes hold.
        own: the images of this process, whose rows begin at 0.

    >>> own = ImageBank(torch.ones(2, 1, 4, 4, dtype=torch.uint8))
    >>> bank = LocalBank.of(own, first=5, total=9)
    >>> len(bank), bank.held(torch.arange(9)).tolist(), len(bank.pixels(torch.tensor([6])))
    (9, [5, 6], 1)
    """

    first: int = 0
    total: int = 0
    own: ImageBank = None  # type: ignore[assignment] - a field after one with a default needs one

    @classmethod
    def of(cls, own: ImageBank, first: int, total: int) -> "LocalBank":
        """A bank of these images; see :class:`LocalBank`."""
        return cls(own.stored, own.device, first, total, own)

    def __len__(self) -> int:
        return self.total

    def pixels(self, index: Int[Tensor, "*shape"]) -> UInt8[Tensor, "*shape c h w"]:
        """Gather images as :meth:`ImageBank.pixels` does.

        Raises:
            DataError: another process holds one of the images.
        """
        if len(self.held(index.reshape(-1))) < index.numel():
            self._refuse()
        return self.own.pixels(index - self.first)

    def fetch(self, rows: Int[Tensor, " n"]) -> None:
        """Say that ``pixels`` will soon be asked for these images, all of which this process holds."""
        self.own.fetch(rows - self.first)

    def held(self, rows: Int[Tensor, " n"]) -> Int[Tensor, " m"]:
        """Those of the rows that this process holds."""
        return rows[(rows >= self.first) & (rows < self.first + len(self.own))]

    def gathered(self, rows: Shaped[Tensor, "n *row"]) -> Shaped[Tensor, "m *row"]:
        """What all processes have computed from their images, in their order; for few numbers."""
        return torch.cat([rows.new_tensor(each) for each in gather_values(rows.tolist()) if each])

    def to(self, device: torch.device | str) -> "LocalBank":
        """Return a bank with the same images, whose batches are on ``device``; see :meth:`ImageBank.to`."""
        return LocalBank.of(self.own.to(device), self.first, self.total)

    @property
    def images(self) -> NoReturn:
        """Not all images are here.

        Raises:
            DataError: always.
        """
        self._refuse()

    def between(self, start: int, stop: int) -> NoReturn:  # noqa: ARG002
        """Not all images are here; see :attr:`images`."""
        self._refuse()

    def chunks(self, size: int) -> Iterator[UInt8[Tensor, "n c h w"]]:  # noqa: ARG002
        """Not all images are here; see :attr:`images`."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        last = self.first + len(self.own) - 1
        raise DataError(
            f"this process holds the images {self.first:,} to {last:,} of {self.total:,} only (local_shards)"
        )
