"""Gallery: the images that a model was shown, and of what class each is. It can be added to and forgotten from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Int, Int8, Shaped
from torch import Tensor

from metarep.data.class_names import clean_name, composed
from metarep.data.copies.picture_hash import LENGTH
from metarep.errors import MetarepError, NotHereError, counted, unknown


@dataclass(frozen=True)
class Gallery:
    """What a model knows. Never edited: to add or forget makes another.

    It owns the rule for names (:mod:`metarep.data.class_names`): every name goes through :meth:`called`. A gallery
    that was written before there was that rule keeps its names, and they are found all the same.

    Args:
        rows: of each image, what the learner prepared of it.
        classes: of each image, the place of its class in ``names``.
        ids: of each image, a number that no other image of this model has had or will have.
        items: of each image, what people call it: a path.
        names: of the classes, in the order in which they came.
        next_id: of the next image.
        hashes: of each image, what :func:`metarep.data.copies.picture_hash.picture_hash` made of its pixels.

    >>> moths = Gallery.empty().add(torch.rand(2, 8), ["moth", "moth"], ["a.jpg", "b.jpg"])
    >>> two = moths.add(torch.rand(1, 8), ["fly"], ["c.jpg"])
    >>> two.names, two.counts.tolist(), two.without([0]).ids.tolist()
    (('moth', 'fly'), [2, 1], [1, 2])
    """

    rows: Shaped[Tensor, "n *row"]
    classes: Int[Tensor, " n"]
    ids: Int[Tensor, " n"]
    items: tuple[str, ...]
    names: tuple[str, ...]
    next_id: int = 0
    hashes: Int8[Tensor, "n length"] | None = None

    @classmethod
    def empty(cls) -> "Gallery":
        """A gallery without classes or images."""
        none = torch.zeros(0, dtype=torch.long)
        return cls(torch.zeros(0, 0), none, none, (), ())

    def __len__(self) -> int:
        """The number of images."""
        return len(self.classes)

    @property
    def hashed(self) -> Int8[Tensor, "n length"]:
        """The hash of each image; zeros, which are like no other, where there are none."""
        return no_hashes(len(self)) if self.hashes is None else self.hashes

    @property
    def counts(self) -> Int[Tensor, " ways"]:
        """Images of each class."""
        return self.classes.bincount(minlength=len(self.names))

    @property
    def in_words(self) -> str:
        """How much there is: ``2 classes, 3 images``."""
        return f"{counted(len(self.names), 'class')}, {counted(len(self), 'image')}"

    def add(
        self,
        rows: Shaped[Tensor, "b *row"],
        labels: Sequence[str],
        items: Sequence[str],
        hashes: Int8[Tensor, "b length"] | None = None,
    ) -> "Gallery":
        """With more images, of classes that are there or of new ones.

        Raises:
            BadNameError: what no class can be called.
            MetarepError: rows, labels and items are not equally many, or rows have another length than those here.
        """
        if not len(rows) == len(labels) == len(items):
            raise MetarepError(
                f"{counted(len(rows), 'image')}, {counted(len(labels), 'label')} and {counted(len(items), 'name')}; "
                "give one each"
            )
        if len(self) and rows.shape[1:] != self.rows.shape[1:]:
            here, there = tuple(self.rows.shape[1:]), tuple(rows.shape[1:])
            raise MetarepError(
                f"images here have features of shape {here}, and these {there}: another encoder made them"
            )
        called = {label: self.called(label) for label in dict.fromkeys(labels)}
        names = tuple(dict.fromkeys((*self.names, *called.values())))
        place = {name: i for i, name in enumerate(names)}
        ids = torch.arange(self.next_id, self.next_id + len(rows))
        return Gallery(
            torch.cat([self.rows, rows]) if len(self) else rows,
            torch.cat([self.classes, torch.tensor([place[called[label]] for label in labels], dtype=torch.long)]),
            torch.cat([self.ids, ids]),
            (*self.items, *items),
            names,
            self.next_id + len(rows),
            torch.cat([self.hashed, no_hashes(len(rows)) if hashes is None else hashes]),
        )

    def called(self, given: str) -> str:
        """What the class that somebody calls ``given`` is called here: as it is kept, or as it would be.

        Raises:
            BadNameError: there is no such class, and none can be called so.
        """
        return given if given in self._places else self._same.get(composed(given)) or clean_name(given)

    def has(self, given: str) -> bool:
        """Whether there is a class that somebody may call ``given``."""
        return given in self._places or composed(given) in self._same

    def place(self, name: str) -> int:
        """Where the class stands that somebody calls ``name``.

        Raises:
            NotHereError: there is no such class; with the nearest name.
        """
        name = name if name in self._places else self._same.get(composed(name), name)
        if name not in self._places:
            raise NotHereError(str(unknown("class", name, self.names)))
        return self._places[name]

    def row(self, number: int) -> int:
        """Where an image stands.

        Raises:
            NotHereError: it is not here.
        """
        ids = self.ids.tolist()
        if number not in ids:
            raise NotHereError(f"there is no image {number} here")
        return ids.index(number)

    def without(self, ids: Iterable[int]) -> "Gallery":
        """Without these images; a class that loses its last is gone.

        Raises:
            NotHereError: an image that is not here.
        """
        kept = torch.ones(len(self), dtype=torch.bool)
        kept[[self.row(number) for number in ids]] = False
        return self._keep(kept)

    def without_class(self, name: str) -> "Gallery":
        """Without a class and all its images.

        Raises:
            NotHereError: there is no such class; with the nearest name.
        """
        return self._keep(self.classes != self.place(name))

    def renamed(self, old: str, new: str) -> "Gallery":
        """With a class called otherwise; if there is one called ``new``, the two become one.

        Raises:
            NotHereError: there is no class ``old``.
            BadNameError: none can be called ``new``.
        """
        place, new = self.place(old), clean_name(new)
        there = self.called(new)
        if there not in self.names or self.names.index(there) == place:
            return replace(self, names=tuple(new if i == place else name for i, name in enumerate(self.names)))
        return replace(self, classes=torch.where(self.classes == place, self.place(there), self.classes))._keep(
            torch.ones(len(self), dtype=torch.bool)
        )

    def moved(self, number: int, name: str) -> "Gallery":
        """With one image in another class, which may be new.

        Raises:
            NotHereError: an image that is not here.
            BadNameError: no class can be called so.
        """
        row, name = self.row(number), self.called(name)
        names = tuple(dict.fromkeys((*self.names, name)))
        classes = self.classes.clone()
        classes[row] = names.index(name)
        return replace(self, classes=classes, names=names)._keep(torch.ones(len(self), dtype=torch.bool))

    def only(self, ids: Iterable[int]) -> "Gallery":
        """Of these images alone, and of their classes."""
        return self._keep(torch.isin(self.ids, torch.tensor(list(ids), dtype=torch.long)))

    def restored(self, part: "Gallery", names: Sequence[str]) -> "Gallery":
        """With the images of ``part`` as they were, whether they are gone since or in another class.

        Args:
            part: what :meth:`only` gave of an earlier gallery of the same model.
            names: of that gallery, which puts the classes into its order.

        >>> two = Gallery.empty().add(torch.rand(2, 8), ["moth", "fly"], ["a.jpg", "b.jpg"])
        >>> two.without_class("moth").restored(two.only([0]), two.names).names
        ('moth', 'fly')
        """
        stays = ~torch.isin(self.ids, part.ids)
        labels = [self.names[place] for place in self.classes[stays].tolist()]
        labels += [part.names[place] for place in part.classes.tolist()]
        order = torch.cat([self.ids[stays], part.ids]).argsort()
        used = set(labels)
        kept = tuple(name for name in dict.fromkeys((*names, *self.names)) if name in used)
        place = {name: i for i, name in enumerate(kept)}
        items = [item for item, here in zip(self.items, stays.tolist(), strict=True) if here] + list(part.items)
        return Gallery(
            torch.cat([self.rows[stays], part.rows])[order] if len(self) else part.rows[order],
            torch.tensor([place[label] for label in labels], dtype=torch.long)[order],
            torch.cat([self.ids[stays], part.ids])[order],
            tuple(items[i] for i in order.tolist()),
            kept,
            max(self.next_id, part.next_id),
            torch.cat([self.hashed[stays], part.hashed])[order],
        )

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    @cached_property
    def _same(self) -> dict[str, str]:
        """The names here by what they are compared by; of two that are the same, the first."""
        return {composed(name): name for name in reversed(self.names)}

    def _keep(self, kept: Tensor) -> "Gallery":
        left = self.classes[kept].unique().tolist()
        place = torch.full((len(self.names),), -1).scatter(
            0, torch.tensor(left, dtype=torch.long), torch.arange(len(left))
        )
        return Gallery(
            self.rows[kept],
            place[self.classes[kept]] if left else self.classes[kept],
            self.ids[kept],
            tuple(item for item, stays in zip(self.items, kept.tolist(), strict=True) if stays),
            tuple(self.names[i] for i in left),
            self.next_id,
            self.hashed[kept],
        )


def no_hashes(n: int) -> Int8[Tensor, "n length"]:
    """Of images whose pixels are not known: like no other."""
    return torch.zeros(n, LENGTH, dtype=torch.int8)
