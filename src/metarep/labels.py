"""Labels: which image belongs to which class. Swapped, never edited."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from metarep.errors import DataError

Kind = Literal["true", "clusters", "instances"]


@dataclass(frozen=True)
class Labels:
    """The class of every image of a bank.

    Args:
        classes: for each image, the row of its class in ``names``.
        names: what people call the classes; unique.
        keys: what a class *is*, across data sets and splits: two classes with one key show the same things, so a
            run that was trained on one must not be evaluated on the other (Omniglot's character rotated is still
            that character; CIFAR-FS and FC100 share classes). Unlike names they may repeat.
        groups: for each image, what it shares with others of its class that a task must not give away: the typeface
            of a glyph. Support and query of one class never come from the same group.
        kind: where the classes are from: people, clusters of features, or each image a class of its own. Of
            ``instances`` a task draws its image as often as it needs samples, each a view of its own.
        others: other ways to divide the same images; every batch is drawn from one of them all.

    >>> labels = Labels.of(["cat", "dog", "cat"])
    >>> labels.names, labels.classes.tolist(), labels.counts.tolist()
    (('cat', 'dog'), [0, 1, 0], [2, 1])
    """

    classes: Int[Tensor, " n"]
    names: tuple[str, ...]
    keys: tuple[str, ...]
    groups: Int[Tensor, " n"] | None = None
    kind: Kind = "true"
    others: "tuple[Labels, ...]" = ()

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            twice = next(name for i, name in enumerate(self.names) if name in self.names[:i])
            raise DataError(f"two classes are called {twice!r}; rename one of them")
        if len(self.keys) != len(self.names):
            raise DataError(f"{len(self.names)} class names but {len(self.keys)} keys")
        if len(self.classes) and not 0 <= int(self.classes.min()) <= int(self.classes.max()) < len(self.names):
            raise DataError(
                f"class numbers must lie in 0 to {len(self.names) - 1}, one for each of the {len(self.names)} names"
            )

    @classmethod
    def of(cls, values: Sequence[object] | np.ndarray | Tensor, source: str = "") -> "Labels":
        """Labels from one value an image (strings, numbers); classes are numbered in sorted order.

        Args:
            values: the class of each image.
            source: goes in front of every key, as in ``cifar-100/apple``, so that equal names of different data
                sets are not taken for one class.

        Raises:
            DataError: a value that is missing (None, NaN), or several classes at once.
        """
        texts = [str(one_class(value, f"label {place}")) for place, value in enumerate(values)]
        names = tuple(sorted(set(texts), key=_order))
        row = {name: i for i, name in enumerate(names)}
        keys = tuple(f"{source}/{name}" if source else name for name in names)
        return cls(torch.tensor([row[text] for text in texts], dtype=torch.long), names, keys)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.classes)

    @cached_property
    def counts(self) -> Int[Tensor, " ways"]:
        """How many images each class has."""
        return torch.bincount(self.classes.cpu(), minlength=len(self.names))

    @cached_property
    def rows(self) -> Int[Tensor, " n"]:
        """The images grouped by class: class ``c`` owns ``rows[starts[c] : starts[c] + counts[c]]``."""
        return torch.argsort(self.classes.cpu(), stable=True)

    def can_give(self, support: int, query: int) -> Bool[Tensor, " ways"]:
        """Which classes have so many images for support, and others for queries; of other groups, where there are.

        >>> faces = torch.tensor([0, 0, 0, 0, 1, 1])
        >>> Labels(torch.tensor([0, 0, 0, 1, 1, 1]), ("a", "b"), ("a", "b"), faces).can_give(1, 1)
        tensor([False,  True])
        """
        if self.kind == "instances":
            return torch.ones(len(self.names), dtype=torch.bool)
        enough = self.counts >= support + query
        if self.groups is None or not query:
            return enough
        divisible = [bool(sums >> support & ((1 << max(0, n - query - support + 1)) - 1)) for sums, n in self._sums]
        return enough & torch.tensor(divisible, dtype=torch.bool)

    @cached_property
    def _sums(self) -> list[tuple[int, int]]:
        """For each class how many images some of its groups can have together, as bits of a number; and all of them."""
        classes, groups = self.classes.cpu().tolist(), [] if self.groups is None else self.groups.cpu().tolist()
        sizes: list[Counter[int]] = [Counter() for _ in self.names]
        for label, group in zip(classes, groups, strict=True):
            sizes[label][group] += 1
        return [(reduce(lambda sums, size: sums | sums << size, each.values(), 1), each.total()) for each in sizes]

    @cached_property
    def starts(self) -> Int[Tensor, " ways"]:
        """Where each class begins in ``rows``."""
        return self.counts.cumsum(0) - self.counts

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits that name these labels: who is in which class, under which name."""
        content = hashlib.sha256("\n".join(self.names).encode())
        for part in (self, *self.others):
            content.update(part.classes.cpu().to(torch.int64).numpy().tobytes())
        return content.hexdigest()[:12]

    @staticmethod
    def join(parts: Sequence["Labels"]) -> "Labels":
        """Labels of several banks put one after the other; their classes must not share a name."""
        groups = [part.groups for part in parts if part.groups is not None]
        if groups and len(groups) < len(parts):
            raise DataError("labels with groups and labels without cannot be joined")
        shifts = torch.tensor([0] + [len(part.names) for part in parts]).cumsum(0).tolist()
        return Labels(
            torch.cat([part.classes + shift for part, shift in zip(parts, shifts, strict=False)]),
            tuple(name for part in parts for name in part.names),
            tuple(key for part in parts for key in part.keys),
            torch.cat(groups) if groups else None,
        )


def one_class(value: Any, what: str) -> object:  # noqa: ANN401 - whatever stands for a class
    """A label as a plain value: out of its tensor or array, and the number of the one that is set if it is one-hot.

    Args:
        value: a string, a number, or a vector.
        what: to name it in an error.

    Raises:
        DataError: it is missing (None, NaN), or a vector that is not one-hot.

    >>> one_class(torch.tensor([0, 0, 1]), "label 0"), one_class(np.int64(7), "label 1")
    (2, 7)
    """
    if isinstance(value, list | tuple):
        value = np.asarray(value) if all(isinstance(each, int | float | np.generic) for each in value) else value
    if isinstance(value, np.ndarray | np.generic | Tensor):
        value = value.tolist() if value.ndim == 0 or value.shape == (1,) else value
        value = value[0] if isinstance(value, list) else value
    if isinstance(value, np.ndarray | Tensor):
        numbers = np.asarray(value)
        if numbers.ndim != 1 or sorted(set(numbers.tolist())) != [0, 1] or (numbers == 1).sum() != 1:
            shown = numbers.tolist() if numbers.size <= 12 else f"of shape {tuple(numbers.shape)}"
            raise DataError(f"{what} has a label that is neither one class nor one-hot: {shown}")
        return int(numbers.argmax())
    if not isinstance(value, str | bytes | int | float) and not (value is None or type(value).__hash__):
        raise DataError(f"{what} has a label of type {type(value).__name__}; a label is a string, a number or one-hot")
    if value is None or type(value).__name__ in ("NAType", "NaTType") or value != value:
        raise DataError(f"{what} has no class: it is {value!r}; leave out the items without one")
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def _order(text: str) -> tuple[bool, int, str]:
    """Numbers by their size, then everything else; a digit in a circle is no number."""
    number = text.isascii() and text.isdecimal() and len(text) < 19
    return not number, int(text) if number else 0, text
