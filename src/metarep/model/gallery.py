"""Gallery: the labelled images that a model has learned (its support set)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress

import torch
from jaxtyping import Int, Int8, Shaped
from torch import Tensor
from typing_extensions import deprecated

from metarep.data.class_names import clean_name, composed
from metarep.data.copies.picture_hash import LENGTH
from metarep.errors import Advice, MetarepError, NotHereError, counted, unknown


@dataclass(frozen=True)
class Gallery:
    """The labelled images of a model. A gallery is immutable: a method that changes it returns a new one.

    It applies the rule for class names (:mod:`metarep.data.class_names`): every name goes through :meth:`called`. A
    gallery from before that rule keeps its names, and a lookup still finds them.

    Args:
        rows: the prepared row of each image, shape ``(n, *row)``; see
            :meth:`metarep.learners.learner.Learner.prepare`.
        classes: the index in ``names`` of each image's class, shape ``(n,)``.
        ids: the id of each image, shape ``(n,)``. No other image of this model has had or will have the same id.
        items: the name that people use for each image, mostly its path.
        names: the names of the classes, in the order in which they were added.
        next_id: the id of the next image.
        hashes: the :func:`metarep.data.copies.picture_hash.picture_hash` of each image, shape ``(n, length)``.
        groups: what each image shows, such as one specimen or one place; empty texts for images by themselves. Images
            of a class and a group are left out together.

    >>> moths = Gallery.empty().add(torch.rand(2, 8), ["moth", "moth"], ["a.jpg", "b.jpg"])
    >>> two = moths.add(torch.rand(1, 8), ["fly"], ["c.jpg"])
    >>> two.names, two.counts.tolist(), two.without([0]).ids.tolist()
    (('moth', 'fly'), [2, 1], [1, 2])
    >>> two.index_of("fly"), two.row(2), two.has("bee"), two.in_words
    (1, 2, False, '2 classes, 3 images')
    >>> two.renamed("fly", "moth").counts.tolist(), two.moved(0, "fly").counts.tolist(), two.only([2]).names
    ([3], [1, 2], ('fly',))
    """

    rows: Shaped[Tensor, "n *row"]
    classes: Int[Tensor, " n"]
    ids: Int[Tensor, " n"]
    items: tuple[str, ...]
    names: tuple[str, ...]
    next_id: int = 0
    hashes: Int8[Tensor, "n length"] | None = None
    groups: tuple[str, ...] = ()

    @classmethod
    def empty(cls) -> "Gallery":
        """Returns a gallery without classes or images."""
        none = torch.zeros(0, dtype=torch.long)
        return cls(torch.zeros(0, 0), none, none, (), ())

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.classes)

    @property
    def hashed(self) -> Int8[Tensor, "n length"]:
        """The hash of each image, shape ``(n, length)``. Where hashes are missing it is zeros, which match no other."""
        return no_hashes(len(self)) if self.hashes is None else self.hashes

    @property
    def grouped(self) -> tuple[str, ...]:
        """The group of each image; empty texts where groups are not known."""
        return self.groups or ("",) * len(self)

    @property
    def counts(self) -> Int[Tensor, " ways"]:
        """The number of images of each class, shape ``(ways,)``."""
        return self.classes.bincount(minlength=len(self.names))

    @property
    def in_words(self) -> str:
        """The numbers of classes and images as text: ``2 classes, 3 images``."""
        return f"{counted(len(self.names), 'class')}, {counted(len(self), 'image')}"

    def add(
        self,
        rows: Shaped[Tensor, "b *row"],
        labels: Sequence[str],
        items: Sequence[str],
        hashes: Int8[Tensor, "b length"] | None = None,
        groups: Sequence[str] | None = None,
    ) -> "Gallery":
        """Returns a gallery with more images, of known or of new classes.

        Args:
            rows: the prepared row of each new image, shape ``(b, *row)``.
            labels: the class name of each.
            items: the name that people use for each, mostly its path.
            hashes: the picture hash of each; None if the pixels are not known.
            groups: the group of each; None if each is by itself.

        Raises:
            BadNameError: a label cannot be the name of a class.
            MetarepError: the numbers of rows, labels, items and groups differ, or the rows have another shape than
                those of the gallery.
        """
        groups = ("",) * len(rows) if groups is None else tuple(groups)
        if not len(rows) == len(labels) == len(items):
            raise MetarepError(
                f"{counted(len(rows), 'image')}, {counted(len(labels), 'label')} and {counted(len(items), 'name')} "
                "do not match; give one label and one name for each image"
            )
        if len(groups) != len(rows):
            given = f"{counted(len(rows), 'image')} and {counted(len(groups), 'group')}"
            raise MetarepError(f"{given} do not match; give one group for each image, an empty text for none")
        if len(self) and rows.shape[1:] != self.rows.shape[1:]:
            own, new = tuple(self.rows.shape[1:]), tuple(rows.shape[1:])
            raise MetarepError(
                f"the new images have features of shape {new}, but those of the model have {own}: another encoder made "
                "them; use the encoder of the model"
            )
        called = {label: self.called(label) for label in dict.fromkeys(labels)}
        names = tuple(dict.fromkeys((*self.names, *called.values())))
        index = {name: i for i, name in enumerate(names)}
        ids = torch.arange(self.next_id, self.next_id + len(rows))
        return Gallery(
            torch.cat([self.rows, rows]) if len(self) else rows,
            torch.cat([self.classes, torch.tensor([index[called[label]] for label in labels], dtype=torch.long)]),
            torch.cat([self.ids, ids]),
            (*self.items, *items),
            names,
            self.next_id + len(rows),
            torch.cat([self.hashed, no_hashes(len(rows)) if hashes is None else hashes]),
            (*self.grouped, *groups),
        )

    def called(self, given: str) -> str:
        """Returns the name of the class that a user calls ``given``.

        It is the name of a class of this gallery if one matches, or else the cleaned name that a new class would get.

        Raises:
            BadNameError: no class matches, and ``given`` cannot be the name of a new one.
        """
        return given if given in self._indices else self._same.get(composed(given)) or clean_name(given)

    def has(self, given: str) -> bool:
        """Whether a class of this gallery matches the name ``given``."""
        return given in self._indices or composed(given) in self._same

    def index_of(self, name: str) -> int:
        """Returns the index in ``names`` of the class that a user calls ``name``.

        Raises:
            NotHereError: no class matches. The message suggests the closest name.
        """
        name = name if name in self._indices else self._same.get(composed(name), name)
        if name not in self._indices:
            raise NotHereError(str(unknown("class", name, self.names)))
        return self._indices[name]

    @deprecated("Gallery.place is now called Gallery.index_of; the old name goes with the next version")
    def place(self, name: str) -> int:
        """The old name of :meth:`index_of`."""
        return self.index_of(name)

    def row(self, number: int) -> int:
        """Returns the row of the image whose id is ``number``.

        Raises:
            NotHereError: no image has this id.
        """
        ids = self.ids.tolist()
        if number not in ids:
            raise NotHereError(
                f"the model has no image {number}; it may have been removed",
                advice=Advice("look for its number in gallery.{ids}", ids=...),  # as an option, so in Python alone
            )
        return ids.index(number)

    def without(self, ids: Iterable[int]) -> "Gallery":
        """Returns a gallery without these images. A class that loses its last image is removed.

        Raises:
            NotHereError: an id is not in the gallery.
        """
        kept = torch.ones(len(self), dtype=torch.bool)
        kept[[self.row(number) for number in ids]] = False
        return self._keep(kept)

    def without_class(self, name: str) -> "Gallery":
        """Returns a gallery without a class and all its images.

        Raises:
            NotHereError: no class matches. The message suggests the closest name.
        """
        return self._keep(self.classes != self.index_of(name))

    def renamed(self, old: str, new: str) -> "Gallery":
        """Returns a gallery in which the class ``old`` is called ``new``.

        If there is already a class called ``new``, the two are merged.

        Raises:
            NotHereError: no class matches ``old``.
            BadNameError: ``new`` cannot be the name of a class.
        """
        index, new = self.index_of(old), clean_name(new)
        existing = self.called(new)
        if existing not in self.names or self.names.index(existing) == index:
            return replace(self, names=tuple(new if i == index else name for i, name in enumerate(self.names)))
        merged = torch.where(self.classes == index, self.index_of(existing), self.classes)
        return replace(self, classes=merged)._keep(torch.ones(len(self), dtype=torch.bool))

    def moved(self, number: int, name: str) -> "Gallery":
        """Returns a gallery in which one image belongs to another class, which may be new.

        Raises:
            NotHereError: no image has this id.
            BadNameError: ``name`` cannot be the name of a class.
        """
        row, name = self.row(number), self.called(name)
        names = tuple(dict.fromkeys((*self.names, name)))
        classes = self.classes.clone()
        classes[row] = names.index(name)
        return replace(self, classes=classes, names=names)._keep(torch.ones(len(self), dtype=torch.bool))

    def only(self, ids: Iterable[int]) -> "Gallery":
        """Returns a gallery of only these images and their classes."""
        return self._keep(torch.isin(self.ids, torch.tensor(list(ids), dtype=torch.long)))

    def restored(self, part: "Gallery", names: Sequence[str]) -> "Gallery":
        """Returns a gallery with the images of ``part`` restored: an undo for removed and moved images.

        Args:
            part: images of an earlier gallery of the same model, as :meth:`only` returned them.
            names: the class names of that earlier gallery. The classes return to its order.

        >>> two = Gallery.empty().add(torch.rand(2, 8), ["moth", "fly"], ["a.jpg", "b.jpg"])
        >>> two.without_class("moth").restored(two.only([0]), two.names).names
        ('moth', 'fly')
        """
        stays = ~torch.isin(self.ids, part.ids)
        labels = [self.names[index] for index in self.classes[stays].tolist()]
        labels += [part.names[index] for index in part.classes.tolist()]
        order = torch.cat([self.ids[stays], part.ids]).argsort()
        used = set(labels)
        kept = tuple(name for name in dict.fromkeys((*names, *self.names)) if name in used)
        new_index = {name: i for i, name in enumerate(kept)}
        items = [*compress(self.items, stays.tolist()), *part.items]
        groups = [*compress(self.grouped, stays.tolist()), *part.grouped]
        return Gallery(
            torch.cat([self.rows[stays], part.rows])[order] if len(self) else part.rows[order],
            torch.tensor([new_index[label] for label in labels], dtype=torch.long)[order],
            torch.cat([self.ids[stays], part.ids])[order],
            tuple(items[i] for i in order.tolist()),
            kept,
            max(self.next_id, part.next_id),
            torch.cat([self.hashed[stays], part.hashed])[order],
            tuple(groups[i] for i in order.tolist()),
        )

    @cached_property
    def _indices(self) -> dict[str, int]:
        """The index of each class by its name."""
        return {name: i for i, name in enumerate(self.names)}

    @cached_property
    def _same(self) -> dict[str, str]:
        """The class names by the composed form that they are compared by. The first of two equal ones wins."""
        return {composed(name): name for name in reversed(self.names)}

    def _keep(self, kept: Tensor) -> "Gallery":
        """Returns a gallery of the images where ``kept`` is true, with classes that have an image left."""
        left = self.classes[kept].unique().tolist()
        new_index = torch.full((len(self.names),), -1).scatter(
            0, torch.tensor(left, dtype=torch.long), torch.arange(len(left))
        )
        return Gallery(
            self.rows[kept],
            new_index[self.classes[kept]] if left else self.classes[kept],
            self.ids[kept],
            tuple(compress(self.items, kept.tolist())),
            tuple(self.names[i] for i in left),
            self.next_id,
            self.hashed[kept],
            tuple(compress(self.grouped, kept.tolist())),
        )


def no_hashes(n: int) -> Int8[Tensor, "n length"]:
    """Returns the hashes of ``n`` images whose pixels are not known: zeros, which match no other image."""
    return torch.zeros(n, LENGTH, dtype=torch.int8)
