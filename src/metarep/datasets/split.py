"""Split: the images and labels of one part of a data set; no class is ever in two parts."""

from collections.abc import Sequence
from typing import NamedTuple

from metarep.datasets.depth import Depth
from metarep.images import ImageBank
from metarep.labels import Labels


class Split(NamedTuple):
    """One part of a data set, by class: images, their labels, what it is called (``omniglot:vinyals/test``), and what
    was taken for black and white of pictures of more than 8 bits.
    """

    bank: ImageBank
    labels: Labels
    name: str
    depth: Depth = Depth()

    @staticmethod
    def join(parts: Sequence["Split"], name: str) -> "Split":
        """Several parts as one (train + validation)."""
        return Split(ImageBank.join([part.bank for part in parts]), Labels.join([part.labels for part in parts]), name)
