"""LabelledIndex: the support rows of one growing task in an index, with the class of each row."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarep.errors import MetarepError
from metarep.index import Index


class LabelledIndex:
    """The support rows of one task that grows: rows and classes can be added and removed, and nothing is trained.

    It is the state of :class:`Neighbours` for a hundred thousand classes and a million images. A search finds the rows
    that vote, so the cost of a prediction does not grow with the number of classes. It may hold class means instead of
    images.

    Args:
        index: an empty index of any backend.

    Raises:
        MetarepError: the index is not empty.

    >>> from metarep import build_index
    >>> gallery = LabelledIndex(build_index("exact", 2))
    >>> ids = gallery.add(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([4, 9]))
    >>> gallery.search(torch.tensor([[0.1, 2.0]]), 1)[1]
    tensor([[9]])
    """

    def __init__(self, index: Index) -> None:
        if len(index):
            raise MetarepError(f"a gallery starts from an empty index, not from one of {len(index)} vectors")
        self.index = index
        self.labels = torch.empty(0, dtype=torch.long)  # the class of each id; -1 for a removed row

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.index)

    @property
    def ways(self) -> int:
        """One more than the highest class, which is the length of a row of logits."""
        return int(self.labels.max()) + 1 if len(self.labels) else 0

    def add(self, rows: Float[Tensor, "n dim"], labels: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Add rows.

        Args:
            rows: rows that the learner has prepared.
            labels: the class of each row, 0 or more. New classes need not be declared.

        Returns:
            The id of each row, by which it can be removed.

        Raises:
            MetarepError: the numbers of rows and classes differ, or a class is negative.
        """
        if len(rows) != len(labels):
            raise MetarepError(f"{len(rows)} rows and {len(labels)} classes do not match; give one class for each row")
        if len(labels) and int(labels.min()) < 0:
            raise MetarepError(f"class {int(labels.min())} is negative; classes are 0 or more")
        ids = torch.arange(len(rows)) + len(self.labels)
        self.index.add(ids, rows)
        self.labels = torch.cat([self.labels, labels.cpu().long()])
        return ids

    def remove(self, ids: Int[Tensor, " n"]) -> None:
        """Remove rows by their ids.

        Raises:
            MetarepError: the index does not hold one of the ids.
        """
        self.index.remove(ids)
        self.labels[ids] = -1

    def forget(self, label: int) -> int:
        """Remove all rows of a class; returns their number."""
        ids = (self.labels == label).nonzero().flatten()
        self.remove(ids)
        return len(ids)

    def search(
        self, query: Float[Tensor, "query dim"], k: int
    ) -> tuple[Float[Tensor, "query k"], Int[Tensor, "query k"], Int[Tensor, "query k"]]:
        """The cosines, classes and ids of the ``k`` nearest rows of each query, nearest first.

        Where there are fewer than ``k`` rows, they are -inf, -1 and -1.

        Raises:
            MetarepError: there are no rows.
        """
        if not len(self):
            raise MetarepError("the gallery is empty; add some rows and their classes first")
        scores, ids = self.index.search(query, k)
        classes = torch.where(ids >= 0, self.labels[ids.clamp_min(0)], -1)
        return scores.to(query), classes.to(query.device), ids.to(query.device)
