"""LabelledIndex: a state that grows. What a classifier has been shown, in an index, and the class of each row."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarep.errors import MetarepError
from metarep.index import Index


class LabelledIndex:
    """Prepared support rows of one task that never ends: rows and classes are added and forgotten, nothing is trained.

    The state of :class:`Neighbours` for a hundred thousand classes and a million images: a search finds the rows that
    vote, so the cost of an answer does not grow with the classes. Class means may stand in it instead of images.

    Args:
        index: an empty one, of any kind; vectors elsewhere and ids are its business.

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
        self.labels = torch.empty(0, dtype=torch.long)  # by id; -1 for what was forgotten

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.index)

    @property
    def ways(self) -> int:
        """One more than the highest class: how long a row of logits is."""
        return int(self.labels.max()) + 1 if len(self.labels) else 0

    def add(self, rows: Float[Tensor, "n dim"], labels: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Remember rows; returns the ids to forget them by.

        Args:
            rows: prepared by the learner.
            labels: the class of each, 0 or more; new classes need no announcement.
        """
        if len(rows) != len(labels):
            raise MetarepError(f"{len(rows)} rows and {len(labels)} classes; give one each")
        if len(labels) and int(labels.min()) < 0:
            raise MetarepError(f"classes are 0 or more, not {int(labels.min())}")
        ids = torch.arange(len(rows)) + len(self.labels)
        self.index.add(ids, rows)
        self.labels = torch.cat([self.labels, labels.cpu().long()])
        return ids

    def remove(self, ids: Int[Tensor, " n"]) -> None:
        """Forget rows."""
        self.index.remove(ids)
        self.labels[ids] = -1

    def forget(self, label: int) -> int:
        """Forget a class; returns how many rows it had."""
        ids = (self.labels == label).nonzero().flatten()
        self.remove(ids)
        return len(ids)

    def search(
        self, query: Float[Tensor, "query dim"], k: int
    ) -> tuple[Float[Tensor, "query k"], Int[Tensor, "query k"], Int[Tensor, "query k"]]:
        """Cosines, classes and ids of the nearest rows; -inf, -1 and -1 where there are fewer than ``k``.

        Raises:
            MetarepError: nothing has been added yet.
        """
        if not len(self):
            raise MetarepError("the gallery is empty; add some rows and their classes first")
        scores, ids = self.index.search(query, k)
        classes = torch.where(ids >= 0, self.labels[ids.clamp_min(0)], -1)
        return scores.to(query), classes.to(query.device), ids.to(query.device)
