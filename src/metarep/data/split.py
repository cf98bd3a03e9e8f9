"""Split: the images and labels of one part of a data set. No class is ever in two parts."""

from collections.abc import Sequence
from typing import NamedTuple

from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.local_bank import LocalBank
from metarep.data.reading.depth import Depth
from metarep.errors import Advice, DataError, MetarepError, counted
from metarep.machine.ranks import rank, ranks


class Split(NamedTuple):
    """One part of a data set. The data set is split by class.

    Attributes:
        bank: the images.
        labels: the class of each image.
        name: the name of data set and part, such as ``omniglot:vinyals/test``.
        depth: which values were taken for black and white in pictures of more than 8 bits.

    >>> import torch
    >>> pixels = torch.tensor([10, 20, 11, 21], dtype=torch.uint8).view(4, 1, 1, 1)
    >>> split = Split(ImageBank(pixels), Labels.of(["a", "b", "a", "b"]), "letters/train")
    >>> split.bank.pixels((split.labels.classes == 1).nonzero().flatten()).flatten().tolist()  # the images of class b
    [20, 21]
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
        labels = self.labels
        if len(labels.names) < ranks:
            there = counted(len(labels.names), "class")
            raise DataError(f"{self.name} has {there}, too few for {ranks} processes; use fewer processes")
        own = labels.share(rank, ranks)
        start = int(labels.starts[len(labels.names) * rank // ranks])
        rows = labels.rows[start : start + len(own)]
        first, last = int(rows[0]), int(rows[-1]) + 1
        in_order = last - first == len(rows) and bool((rows.diff() == 1).all())
        bank = self.bank.between(first, last) if in_order else ImageBank(self.bank.pixels(rows))
        return self._replace(bank=bank, labels=own)

    def local(self, parts: int) -> "Split":
        """The split with a bank of the classes that this process holds, and with all labels, sorted by class.

        Rows count the images in the order of their classes. A split that is local already is returned as it is.

        Args:
            parts: the number of parts of the classes, of which each process holds equally many; 1 for this split.

        Raises:
            MetarepError: the processes cannot hold equally many. ``DataError`` if there are fewer classes than parts.

        >>> import torch
        >>> split = Split(ImageBank(torch.zeros(4, 1, 4, 4, dtype=torch.uint8)), Labels.of(list("baba")), "letters")
        >>> split.local(2).labels.classes.tolist()
        [0, 0, 1, 1]
        """
        if parts == 1 or isinstance(self.bank, LocalBank):
            return self
        if parts % ranks():
            raise MetarepError(
                f"local_shards divides the classes into {parts} parts, of which {ranks()} processes cannot hold "
                "equally many",
                advice=(
                    Advice("take {local_shards} or a multiple of it", local_shards=ranks()),
                    "start fewer processes",
                ),
            )
        self.labels.share(0, parts)  # raises an error if there are too few classes
        own = self.share(rank(), ranks())
        first = int(self.labels.starts[len(self.labels.names) * rank() // ranks()])
        bank = LocalBank.of(own.bank, first, len(self.labels))
        return self._replace(bank=bank, labels=self.labels.share(0, 1))
