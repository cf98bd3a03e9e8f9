"""Split: the images and labels of one part of a data set. No class is ever in two parts."""

from collections.abc import Sequence
from typing import NamedTuple

from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.reading.depth import Depth


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
