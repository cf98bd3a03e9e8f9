"""MultiLabelModel: says of each of a user's labels whether an image has it; an image may have several, or none."""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int8, UInt8
from torch import Tensor, nn
from torch.nn import functional

from metarep.data.class_names import clean_name
from metarep.data.copies.near_copies import near_copies
from metarep.data.reading.depth import Depth
from metarep.data.reading.photographs import LeftOut, name_of
from metarep.errors import Advice, MetarepError, counted
from metarep.model.answers import LabelAnswer
from metarep.model.gallery import Gallery, no_hashes
from metarep.model.model import Model
from metarep.model.multi_label.calibration import Calibration
from metarep.model.multi_label.rows import encoded, first_with_the_picture, label_scores, marked, merged
from metarep.model.multi_label.scores import LabelVerdict, measure_labels
from metarep.model.trust.units import join_groups
from metarep.weights.own_network import represent
from metarep.weights.representation import Representation

FOLDS = 10  # of cross-validation; each needs one solution a label


class MultiLabelModel:
    """A few-shot model of several labels an image. It asks for each label by itself whether the image has it.

    Each question is one task of two classes for the learner that ``head`` names, with the images that have the label
    against all others (binary relevance; Boutell et al., Learning multi-label scene classification, 2004). The
    probabilities and thresholds come from cross-validation on the same images; near copies are left out together.

    Args:
        representation: the encoder; None if features are given instead of images.
        names: the labels.
        rows: the features of the images, shape ``(n, dim)``.
        marks: which image has which label, shape ``(n, labels)``.
        items: the name that people use for each image, mostly its path.
        head: the learner and its settings, as for :class:`metarep.model.model.Model`.
        hashes: the picture hash of each image, shape ``(n, length)``; None if the pixels are not known.
        depth: black and white of images of more than 8 bits.
        groups: what each image shows, such as one specimen; images of a group are left out together. Empty texts for
            images by themselves.

    Raises:
        MetarepError: there is no label or no image, a label is of no image or of all of them, or the learner adapts the
            encoder.

    >>> rows = torch.tensor([[1.0, 0.1], [0.9, 0.0], [0.1, 1.0], [0.0, 0.9], [1.0, 1.0], [0.9, 1.1]])
    >>> have = [["sun"], ["sun"], ["sea"], ["sea"], ["sun", "sea"], ["sun", "sea"]]
    >>> model = MultiLabelModel.fit(None, rows, have, head={"name": "prototypes"})
    >>> [list(each.labels) for each in model.answer(torch.tensor([[1.0, 0.05], [0.05, 1.0]]))]
    [['sun'], ['sea']]
    """

    def __init__(
        self,
        representation: Representation | nn.Module | None,
        names: Sequence[str],
        rows: Float[Tensor, "n dim"],
        marks: Bool[Tensor, "n labels"],
        items: Sequence[str],
        *,
        head: dict[str, Any] | None = None,
        hashes: Int8[Tensor, "n length"] | None = None,
        depth: Depth | None = None,
        groups: Sequence[str] = (),
    ) -> None:
        self.base = Model(representation, head, Gallery.empty(), depth=depth)  # reads and encodes images
        self.representation, self.head, self.learner = self.base.representation, self.base.head, copy(self.base.learner)
        self.learner.level = False  # images without a label are no class that is alike, however many they are
        self.names, self.rows, self.marks, self.items = tuple(names), rows, marks, tuple(items)
        self.hashes = no_hashes(len(rows)) if hashes is None else hashes
        self.depth, self.groups = self.base.depth, tuple(groups) or ("",) * len(rows)
        if rows.ndim != 2 or not rows.is_floating_point():
            raise MetarepError(
                f"the learner {self.learner.called!r} adapts the encoder, so it cannot learn several labels an image",
                advice=Advice("fit with {learner}", learner="linear"),
            )
        if not len(self.names):
            raise MetarepError("no image has a label; give at least one")
        for name, count in zip(self.names, marks.sum(0).tolist(), strict=True):
            if count in (0, len(rows)):
                has = "every image has" if count else "no image has"
                other = "without" if count else "with"
                raise MetarepError(
                    f"{has} the label {name!r}, so nothing shows what the difference is",
                    advice=[f"add images {other} it", "leave the label out"],
                )

    @classmethod
    def fit(
        cls,
        representation: Representation | nn.Module | None,
        images: Any,  # noqa: ANN401 - whatever people have
        labels: Sequence[Sequence[str]],
        *,
        head: dict[str, Any] | None = None,
        depth: Depth | None = None,
        batch: int = 64,
        skip_bad: bool = False,
        groups: Sequence[str] | None = None,
    ) -> "MultiLabelModel":
        """Learns labels from images. A picture that is given several times is learned once, with all its labels.

        Args:
            representation: the encoder, from :func:`metarep.weights.named.load_representation`; None for features.
            images: see :func:`metarep.data.reading.photographs.read_images`; without an encoder, features ``(n, dim)``.
            labels: the labels of each image; an empty list if it has none of them.
            head: the learner and its settings; None takes that of :class:`metarep.model.model.Model`.
            depth: black and white of images of more than 8 bits.
            batch: the number of images that are encoded at a time.
            skip_bad: whether to leave out images that cannot be read.
            groups: see the class; None if each image is by itself.

        Raises:
            DataError: an image cannot be read.
            MetarepError: see the class; or there is not one list of labels for each image.
            BadNameError: a label cannot be a name.

        Warns:
            LeftOutWarning: with ``skip_bad``, for each image that cannot be read.
            RepeatWarning: for each picture that is given several times.
        """
        if len(images) != len(labels):
            raise MetarepError(
                f"{counted(len(images), 'image')} and labels of {counted(len(labels), 'image')} do not match; give a "
                "list of labels for each image"
            )
        if any(isinstance(each, str) for each in labels):
            raise MetarepError("the labels of an image are a list, and not one text; write ['cat', 'dog']")
        representation = represent(representation) if isinstance(representation, nn.Module) else representation
        base = Model(representation, head, Gallery.empty(), depth=depth)
        if representation is None:
            rows, hashes, kept = base.prepare(np.asarray(images, dtype=np.float32)), None, range(len(images))
        else:
            rows, hashes, kept = encoded(base, images, batch=batch, skip_bad=skip_bad)
        sets = [{clean_name(label) for label in labels[position]} for position in kept]
        items = [name_of(images, position) for position in kept]
        own = [(groups or [""] * len(images))[position] for position in kept]
        if hashes is not None:
            once = merged(sets, first_with_the_picture(rows, hashes), items)
            rows, hashes, sets, items = rows[once], hashes[once], [sets[i] for i in once], [items[i] for i in once]
            own = [own[i] for i in once]
        names = sorted(set().union(*sets))
        marks = marked(sets, names)
        return cls(representation, names, rows, marks, items, head=head, hashes=hashes, depth=depth, groups=own)

    def changed(
        self,
        names: Sequence[str],
        rows: Float[Tensor, "n dim"],
        marks: Bool[Tensor, "n labels"],
        items: Sequence[str],
        hashes: Int8[Tensor, "n length"],
        depth: Depth | None = None,
        groups: Sequence[str] = (),
    ) -> "MultiLabelModel":
        """Returns the same model with other labels and images, and with ``depth`` if it is given.

        What it says of itself (:attr:`trust`, :attr:`calibration`) is measured again.
        """
        depth = self.depth if depth is None else depth
        about = {"head": self.head, "hashes": hashes, "depth": depth, "groups": groups}
        return type(self)(self.representation, names, rows, marks, items, **about)

    def restore_calibration(self, calibration: Calibration, trust: LabelVerdict | None) -> "MultiLabelModel":
        """Stores results that were computed earlier for these images, and returns the model itself.

        Args:
            calibration: the earlier value of :attr:`calibration`.
            trust: the earlier value of :attr:`trust`; None if it is to be computed again.
        """
        self.__dict__.update({"calibration": calibration} | ({} if trust is None else {"trust": trust}))
        return self

    @property
    def in_words(self) -> str:
        """The numbers of labels and images as text: ``3 labels, 40 images``."""
        return f"{counted(len(self.names), 'label')}, {counted(len(self.rows), 'image')}"

    def read(
        self,
        images: Any,  # noqa: ANN401 - whatever people have
        *,
        batch: int = 64,
        depth: Depth | None = None,
        left_out: LeftOut | None = None,
    ) -> Iterator[tuple[UInt8[Tensor, "b c h w"], Float[Tensor, "b dim"]]]:
        """Yields batches of images, as their pixels and features; see :meth:`metarep.model.model.Model.read`."""
        return self.base.read(images, batch=batch, depth=depth, left_out=left_out)

    def prepare(
        self,
        images: Any,  # noqa: ANN401 - whatever people have
        *,
        batch: int = 64,
        names: Sequence[str] | None = None,
    ) -> Float[Tensor, "m dim"]:
        """Returns the features of images, shape ``(m, dim)``; see :meth:`metarep.model.model.Model.prepare`."""
        return self.base.prepare(images, batch=batch, names=names)

    @cached_property
    def states(self) -> list[dict[str, Tensor]]:
        """The learner's state for each label, as a batch of one task whose second class is "has it"."""
        with torch.no_grad():
            return [self.learner.adapt(self.rows[None], marks[None].long(), 2) for marks in self.marks.mT]

    def scores(self, rows: Float[Tensor, "m dim"]) -> Float[Tensor, "m labels"]:
        """Returns the score of each label, shape ``(m, labels)``: the logit of "has it" minus that of "has it not"."""
        with torch.no_grad():
            return label_scores(self.learner, self.states, rows)

    @cached_property
    def held_out(self) -> Float[Tensor, "n labels"]:
        """The scores of the model's own images when they are left out; NaN for a label that cannot be left out."""
        units = join_groups(near_copies(functional.normalize(self.rows, dim=-1), self.hashes), self.groups)
        fold = units % FOLDS
        folds = [(fold == number).nonzero().flatten() for number in fold.unique().tolist()]
        order = torch.cat(folds)
        scores = torch.full(self.marks.shape, float("nan"))
        for index, marks in enumerate(self.marks.mT):
            if min(len(fold[marks].unique()), len(fold[~marks].unique())) < 2:
                continue
            with torch.no_grad():
                logits = self.learner.held_out(self.rows, marks.long(), 2, folds)
            scores[order, index] = logits[:, 1] - logits[:, 0]
        return scores

    @cached_property
    def calibration(self) -> Calibration:
        """Probabilities and thresholds, from :attr:`held_out`."""
        return Calibration.of(self.held_out, self.marks)

    @cached_property
    def trust(self) -> LabelVerdict | None:
        """How right the model is on its own images when they are left out, over the labels that can be.

        None if no label has two images with it and two without. For each label it has the average precision.
        """
        tested = torch.tensor(self.calibration.tested)
        if not tested.any():
            return None
        scores = self.held_out
        decided = self.decide(self.probabilities(scores))
        names = [name for name, there in zip(self.names, tested.tolist(), strict=True) if there]
        return measure_labels(names, scores[:, tested], decided[:, tested], self.marks[:, tested])

    def probabilities(self, scores: Float[Tensor, "m labels"]) -> Float[Tensor, "m labels"]:
        """Returns the calibrated probabilities of scores, each 0 to 1."""
        return self.calibration.probabilities(scores)

    def decide(self, probabilities: Float[Tensor, "m labels"]) -> Bool[Tensor, "m labels"]:
        """Returns which labels an image has, by the threshold of each."""
        return self.calibration.decide(probabilities)

    def answer(self, rows: Float[Tensor, "m dim"]) -> list[LabelAnswer]:
        """Returns the answer for each row of features."""
        probabilities = self.probabilities(self.scores(rows))
        answers = []
        for own, has in zip(probabilities.tolist(), self.decide(probabilities).tolist(), strict=True):
            every = dict(zip(self.names, own, strict=True))
            chosen = [name for name, yes in zip(self.names, has, strict=True) if yes]
            answers.append(LabelAnswer({n: every[n] for n in sorted(chosen, key=lambda n: -every[n])}, every))
        return answers

    def as_dict(self) -> dict[str, Any]:
        """Returns the labels, the calibration and the trust as JSON can hold them."""
        own, trust = self.trust.per_label if self.trust else {}, self.trust
        counts, thresholds = self.marks.sum(0).tolist(), self.calibration.thresholds
        return {
            "labels": {
                name: {
                    "images": count,
                    "threshold": round(threshold, 4),
                    "average_precision": own[name]["average_precision"] if name in own else None,
                }
                for name, count, threshold in zip(self.names, counts, thresholds, strict=True)
            },
            "images": len(self.rows),
            "encoder": self.representation.name if self.representation else None,
            "head": self.head,
            "calibration": asdict(self.calibration),
            "held_out": trust.as_dict() if trust else None,
        }
