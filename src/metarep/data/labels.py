"""Labels: the class of each image of a bank. They are replaced as a whole and never edited."""

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
    """Holds the class of every image of a bank.

    Args:
        classes: the class of each image, as a position in ``names``.
        names: the name of each class, as people read it; unique.
        keys: the identity of each class across data sets and splits; may repeat. Two classes with the same key show
            the same things, so a run that was trained on one must not be evaluated on the other. A rotated Omniglot
            character is still that character, and CIFAR-FS and FC100 share classes.
        groups: the group of each image, such as the typeface of a glyph. Support and query of one class never come
            from the same group, because what a group shares would give the answer away.
        kind: the source of the classes. ``true``: people gave them. ``clusters``: they are clusters of features.
            ``instances``: each image is a class of its own. Then a task draws that image once for each sample that
            it needs, and every sample is a different augmented view.
        others: alternative classes of the same images. Each batch is drawn from one of these or from the classes here.

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
            raise DataError(f"{len(self.names)} class names but {len(self.keys)} keys; give one key for each name")
        if len(self.classes) and not 0 <= int(self.classes.min()) <= int(self.classes.max()) < len(self.names):
            raise DataError(
                f"class numbers must lie in 0 to {len(self.names) - 1}, one for each of the {len(self.names)} names"
            )

    @classmethod
    def of(cls, values: Sequence[object] | np.ndarray | Tensor, source: str = "") -> "Labels":
        """Make labels from one value for each image; classes are numbered in sorted order.

        Args:
            values: the class of each image: a string, a number or a one-hot vector.
            source: a prefix of every key, as in ``cifar-100/apple``. It keeps equal names of different data sets
                apart.

        Raises:
            DataError: a value is missing (None, NaN), or stands for several classes at once.

        >>> Labels.of([10, 9, 10], source="digits").keys
        ('digits/9', 'digits/10')
        """
        texts = [str(one_class(value, f"label {position}")) for position, value in enumerate(values)]
        names = tuple(sorted(set(texts), key=_order))
        row = {name: i for i, name in enumerate(names)}
        keys = tuple(f"{source}/{name}" if source else name for name in names)
        return cls(torch.tensor([row[text] for text in texts], dtype=torch.long), names, keys)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.classes)

    @cached_property
    def counts(self) -> Int[Tensor, " ways"]:
        """The number of images of each class."""
        return torch.bincount(self.classes.cpu(), minlength=len(self.names))

    @cached_property
    def rows(self) -> Int[Tensor, " n"]:
        """The rows of the images, sorted by class: class ``c`` owns ``rows[starts[c] : starts[c] + counts[c]]``."""
        classes = self.classes.cpu()
        if bool((classes[1:] >= classes[:-1]).all()):  # sorted already, as millions of images are
            return torch.arange(len(classes))
        return torch.argsort(classes, stable=True)

    def can_give(self, support: int, query: int) -> Bool[Tensor, " ways"]:
        """Tell for each class whether it has enough images for a task.

        Where labels have groups, the support and the query images must also come from different groups.

        Args:
            support, query: images of the class that the task needs.

        >>> faces = torch.tensor([0, 0, 0, 0, 1, 1])
        >>> Labels(torch.tensor([0, 0, 0, 1, 1, 1]), ("a", "b"), ("a", "b"), faces).can_give(1, 1)
        tensor([False,  True])
        """
        if self.kind == "instances":
            return torch.ones(len(self.names), dtype=torch.bool)
        enough = self.counts >= support + query
        if self.groups is None or not query:
            return enough
        divisible = [_has_bit(sums, support, total - query) for sums, total in self._group_sums]
        return enough & torch.tensor(divisible, dtype=torch.bool)

    def usable(self, support: int, query: int) -> Int[Tensor, " n"]:
        """The classes that have enough images for a task, as positions in ``names``; they are found once.

        Args:
            support, query: images of the class that the task needs.

        >>> Labels.of(["cat", "dog", "cat"]).usable(1, 1)
        tensor([0])
        """
        known = self._usable
        if (support, query) not in known:
            known[support, query] = self.can_give(support, query).nonzero().squeeze(1)
        return known[support, query]

    @cached_property
    def _usable(self) -> dict[tuple[int, int], Tensor]:
        """The cache of :meth:`usable`: usable classes by the numbers of support and query images."""
        return {}

    @cached_property
    def _group_sums(self) -> list[tuple[int, int]]:
        """The subset sums of the group sizes of each class, and the number of its images.

        Bit ``k`` of the first number is set if some of the groups have ``k`` images together.
        """
        classes, groups = self.classes.cpu().tolist(), [] if self.groups is None else self.groups.cpu().tolist()
        sizes: list[Counter[int]] = [Counter() for _ in self.names]
        for label, group in zip(classes, groups, strict=True):
            sizes[label][group] += 1
        return [(reduce(lambda sums, size: sums | sums << size, each.values(), 1), each.total()) for each in sizes]

    @cached_property
    def starts(self) -> Int[Tensor, " ways"]:
        """The position in ``rows`` at which each class begins."""
        return self.counts.cumsum(0) - self.counts

    def share(self, part: int, parts: int) -> "Labels":
        """The labels of a part of the classes: neighbours, as many in each part as possible, sorted by class.

        Args:
            part: the number of the part, from 0.
            parts: the number of parts.

        Raises:
            DataError: there are fewer classes than parts, or several partitions (``others``).

        >>> Labels.of(list("aabbcc")).share(1, 2).names
        ('b', 'c')
        """
        count = len(self.names)
        if self.others:
            raise DataError("only the classes of a single partition can be divided; take partitions=1")
        if count < parts:
            raise DataError(f"{count} classes are too few for {parts} parts; take fewer parts, or add classes")
        low, high = count * part // parts, count * (part + 1) // parts
        start, stop = int(self.starts[low]), int(self.starts[high - 1] + self.counts[high - 1])
        rows = self.rows[start:stop]
        groups = None if self.groups is None else self.groups.cpu()[rows]
        return Labels(self.classes.cpu()[rows] - low, self.names[low:high], self.keys[low:high], groups, self.kind)

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits that identify these labels: which image is in which class, and the class names."""
        content = hashlib.sha256("\n".join(self.names).encode())
        for part in (self, *self.others):
            content.update(part.classes.cpu().to(torch.int64).numpy().tobytes())
        return content.hexdigest()[:12]

    @staticmethod
    def join(parts: Sequence["Labels"]) -> "Labels":
        """Concatenate the labels of several banks.

        Raises:
            DataError: two classes have the same name, or only some of the labels have groups.

        >>> Labels.join([Labels.of(["cat", "dog"]), Labels.of(["moth"])]).classes.tolist()
        [0, 1, 2]
        """
        groups = [part.groups for part in parts if part.groups is not None]
        if groups and len(groups) < len(parts):
            raise DataError("labels with groups and labels without cannot be joined; give groups to all or to none")
        shifts = torch.tensor([0] + [len(part.names) for part in parts]).cumsum(0).tolist()
        return Labels(
            torch.cat([part.classes + shift for part, shift in zip(parts, shifts, strict=False)]),
            tuple(name for part in parts for name in part.names),
            tuple(key for part in parts for key in part.keys),
            torch.cat(groups) if groups else None,
        )


def one_class(value: Any, what: str) -> object:  # noqa: ANN401 - anything that can stand for a class
    """Turn a label into a plain Python value.

    Args:
        value: a string, a number, an array or tensor of one element, or a one-hot vector.
        what: the name of the label in an error.

    Returns:
        The string or number. Bytes become text, and a one-hot vector becomes the position of its 1.

    Raises:
        DataError: the label is missing (None, NaN), or is a vector that is not one-hot.

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


def _has_bit(bits: int, low: int, high: int) -> bool:
    """Whether one of the bits ``low`` to ``high``, both included, is set."""
    window = (1 << max(0, high - low + 1)) - 1
    return bool(bits >> low & window)


def _order(text: str) -> tuple[bool, int, str]:
    """Sort key of a class name: decimal numbers come first, by value, and then all other names.

    Only ASCII digits count. A digit in a circle is not a number.
    """
    number = text.isascii() and text.isdecimal() and len(text) < 19
    return not number, int(text) if number else 0, text
