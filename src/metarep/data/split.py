"""Split: the images and labels of one part of a data set. No class is ever in two parts."""

from collections.abc import Sequence
from typing import NamedTuple

from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.reading.depth import Depth
from metarep.errors import DataError


class Split(NamedTuple):
    """One part of a data set. The data set is split by class.

    Attributes:
        bank: the images.
        labels: the class of each image.
        name: the name of data set and part, such as ``omniglot:vinyals/test``.
        depth: which values were taken for black and white in pictures of more than 8 bits.
    """

    bank: ImageBank
    labels: Labels
    name: str
    depth: Depth = Depth()

    @staticmethod
    def join(parts: Sequence["Split"], name: str) -> "Split":
        """Join several parts into one, such as training and validation.

        Args:
            parts: parts whose images have the same shape and whose classes differ.
            name: the name of the result.

        Raises:
            DataError: the images differ in shape, or two parts have a class of the same name.

        >>> import torch
        >>> one = Split(ImageBank(torch.zeros(2, 1, 4, 4, dtype=torch.uint8)), Labels.of(["a", "b"]), "letters/train")
        >>> other = Split(ImageBank(torch.ones(1, 1, 4, 4, dtype=torch.uint8)), Labels.of(["c"]), "letters/val")
        >>> both = Split.join([one, other], "letters/trainval")
        >>> len(both.bank), list(both.labels.names)
        (3, ['a', 'b', 'c'])
        """
        return Split(ImageBank.join([part.bank for part in parts]), Labels.join([part.labels for part in parts]), name)

    def share(self, rank: int, ranks: int) -> "Split":
        """The classes that one of several processes holds: neighbours, and as many for each process as possible.

        Each class belongs to one process. Where the images are sorted by class, none of them is copied or read.

        Args:
            rank: the number of the process, from 0.
            ranks: the number of processes.

        Raises:
            DataError: there are fewer classes than processes.

        >>> import torch
        >>> split = Split(ImageBank(torch.zeros(6, 1, 4, 4, dtype=torch.uint8)), Labels.of(list("aabbcc")), "letters")
        >>> [split.share(rank, 2).labels.names for rank in range(2)]
        [('a',), ('b', 'c')]
        """
        labels, count = self.labels, len(self.labels.names)
        if count < ranks:
            raise DataError(f"{self.name} has {count} classes, too few for {ranks} processes; use fewer processes")
        low, high = count * rank // ranks, count * (rank + 1) // ranks
        end = int(labels.starts[high - 1] + labels.counts[high - 1])
        rows = labels.rows[int(labels.starts[low]) : end]
        first, last = int(rows[0]), int(rows[-1]) + 1
        in_order = last - first == len(rows) and bool((rows.diff() == 1).all())
        bank = self.bank.between(first, last) if in_order else ImageBank(self.bank.pixels(rows))
        groups = None if labels.groups is None else labels.groups.cpu()[rows]
        own = Labels(
            labels.classes.cpu()[rows] - low, labels.names[low:high], labels.keys[low:high], groups, labels.kind
        )
        return self._replace(bank=bank, labels=own)
