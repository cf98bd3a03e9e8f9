"""Model: a few-shot classifier of an encoder, a learner and a gallery. The commands, the server and the page use it."""

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import deprecated

from metarep.data.reading.depth import Depth
from metarep.data.reading.photographs import LeftOut, name_of, read_images
from metarep.encoders.finite import refuse_lost_features, refuse_lost_rows, refuse_lost_scores
from metarep.errors import MetarepError
from metarep.machine.device import keep_freed_memory
from metarep.model.answers import Answer, Neighbour
from metarep.model.gallery import Gallery
from metarep.model.head import build_head
from metarep.model.trust.expected import shipped_trust
from metarep.model.trust.points import PointSpace
from metarep.model.trust.self_test import SelfTest
from metarep.model.trust.suspects import Suspect
from metarep.model.trust.trust import HeldOut, Trust, check_share
from metarep.model.tuning.verdict import Tuning, Verdict
from metarep.weights.own_network import represent
from metarep.weights.representation import Representation


class Model:
    """A few-shot classifier of a user's own classes. It is immutable: :meth:`changed` returns one with other images.

    Args:
        representation: the encoder; None if features are given instead of images. An
            :class:`metarep.encoders.Encoder`, or a module that describes its input, is converted by
            :func:`metarep.weights.own_network.represent`.
        head: the name and settings of the learner. ``{"name": "trained"}`` is the learner that was trained with the
            encoder. None takes that one if there is one, or else ``HEAD``.
        gallery: the labelled images that the model has learned.
        false_alarms: see :class:`metarep.model.trust.trust.Trust`.
        depth: black and white of images of more than 8 bits, for the gallery and for queries. See
            :mod:`metarep.data.reading.depth`.
        tuning: how the encoder was tuned on images of the user (:mod:`metarep.model.tuning`); its trust
            is then that of the model, also after images were added.
        adapting: how the encoder learned from unlabelled images, if that was kept. The same labelled images have chosen
            it, so the accuracy is lowered by :attr:`metarep.model.tuning.verdict.Verdict.discount`.

    Raises:
        MetarepError: the learner is unknown, no learner was trained with the encoder, or ``false_alarms`` is not a
            share.

    >>> rows = torch.tensor([[1.0, 0.0], [0.9, 0.2], [0.0, 1.0], [0.2, 0.9]])
    >>> gallery = Gallery.empty().add(rows, ["moth", "moth", "fly", "fly"], ["1.jpg", "2.jpg", "3.jpg", "4.jpg"])
    >>> model = Model(None, {"name": "prototypes"}, gallery)
    >>> answer = model.answer(torch.tensor([[0.9, 0.3]]))[0]
    >>> answer.label, [near.item for near in answer.neighbours]
    ('moth', ['2.jpg', '1.jpg', '4.jpg'])
    >>> tuple(model.scores(rows).shape), model.changed(gallery.without_class("fly")).gallery.names
    ((4, 2), ('moth',))
    """

    def __init__(
        self,
        representation: Representation | nn.Module | None,
        head: dict[str, Any] | None = None,
        gallery: Gallery | None = None,
        *,
        false_alarms: float = 0.05,
        depth: Depth | None = None,
        tuning: Tuning | None = None,
        adapting: Verdict | None = None,
    ) -> None:
        check_share(false_alarms)
        representation = represent(representation) if isinstance(representation, nn.Module) else representation
        self.representation, self.false_alarms, self.tuning = representation, false_alarms, tuning
        self.adapting = adapting
        self.depth = depth if depth is not None else representation.depth if representation else Depth()
        self.gallery = gallery if gallery is not None else Gallery.empty()
        self.head, self.learner = build_head(representation, head)
        self.learner.eval()

    def changed(self, gallery: Gallery, depth: Depth | None = None) -> "Model":
        """Returns the same model with another gallery, and with ``depth`` if it is given."""
        depth = self.depth if depth is None else depth
        about = {"false_alarms": self.false_alarms, "tuning": self.tuning, "adapting": self.adapting}
        return Model(self.representation, self.head, gallery, depth=depth, **about)

    @property
    def in_words(self) -> str:
        """The numbers of classes and images as text: ``2 classes, 3 images``."""
        return self.gallery.in_words

    def restore_calibration(self, trust: Trust, state: dict[str, Tensor] | None) -> "Model":
        """Stores results that were computed earlier for this gallery, and returns the model itself.

        Args:
            trust: the earlier value of :attr:`trust`.
            state: the earlier value of :attr:`state`; None if it is to be computed again.
        """
        self.__dict__.update({"trust": trust} | ({} if state is None else {"state": state}))
        return self

    @deprecated("Model.settled is now called Model.restore_calibration; the old name goes with the next version")
    def settled(self, trust: Trust, state: dict[str, Tensor] | None) -> "Model":
        """The old name of :meth:`restore_calibration`."""
        return self.restore_calibration(trust, state)

    def prepare(
        self,
        images: Any,  # noqa: ANN401 - whatever people have
        *,
        batch: int = 64,
        depth: Depth | None = None,
        names: Sequence[str] | None = None,
    ) -> Shaped[Tensor, "n *row"]:
        """Returns the prepared rows of images, shape ``(n, *row)``. Without an encoder, ``images`` are features.

        The arguments are those of :meth:`read`.

        Raises:
            MetarepError: no image is given.
            DataError: an image cannot be read, or a feature is NaN or infinite.
        """
        if self.representation is None:
            given = torch.from_numpy(np.array(images))
            refuse_lost_features(given)
            return given
        rows = [rows for _, rows in self.read(images, batch=batch, names=names, depth=depth)]
        if not rows:
            raise MetarepError("no image is given; give at least one")
        return torch.cat(rows)

    def read(
        self,
        images: Any,  # noqa: ANN401 - whatever people have
        *,
        batch: int = 64,
        depth: Depth | None = None,
        names: Sequence[str] | None = None,
        left_out: LeftOut | None = None,
    ) -> Iterator[tuple[UInt8[Tensor, "b c h w"], Shaped[Tensor, "b *row"]]]:
        """Yields batches of images: their pixels at the encoder's size, and their prepared rows.

        Args:
            images: see :func:`metarep.data.reading.photographs.read_images`.
            batch: the number of images in a batch.
            depth: black and white of these images, instead of the model's own.
            names: the names of the images in an error, if ``images`` are not paths.
            left_out: collects the images that cannot be read; see :class:`metarep.data.reading.photographs.LeftOut`.

        Raises:
            DataError: an image cannot be read, or its features are NaN or infinite.
            MetarepError: the encoder returns NaN or infinite values for any image.
        """
        keep_freed_memory()
        encoder, order = self.learner.encoder, (left_out or LeftOut()).others()
        wanted, name = encoder.preprocess, names.__getitem__ if names else partial(name_of, images)
        for pixels in read_images(images, wanted, batch=batch, depth=depth or self.depth, left_out=left_out):
            with torch.no_grad():
                rows = self.learner.prepare(pixels)
            positions = list(islice(order, len(pixels)))
            refuse_lost_rows(rows, encoder, lambda row, positions=positions: name(positions[row]))
            yield pixels, rows

    def scores(self, rows: Shaped[Tensor, "n *row"]) -> Float[Tensor, "n ways"]:
        """Returns the logits of prepared rows, shape ``(n, ways)``, with the classes in the order of the gallery.

        Raises:
            MetarepError: the model has no classes yet.
            DataError: a score is NaN or infinite. The message names the image, or the gallery image that causes it.
        """
        if not len(self.gallery):
            raise MetarepError("the model has no classes yet; add some images first")
        if len(self.gallery.names) == 1:
            return rows.new_zeros(len(rows), 1)  # a single class needs no comparison
        with torch.no_grad():
            logits = self.learner.logits(self.state, rows.unsqueeze(0))[0]
        if not bool(logits.isfinite().all()):
            refuse_lost_rows(self.gallery.rows, self.learner.encoder, self.gallery.items.__getitem__)
            refuse_lost_scores(logits, self.learner)
        return logits

    def answer(self, rows: Shaped[Tensor, "n *row"], neighbours: int = 3) -> list[Answer]:
        """Returns the answer for each prepared row, with at most ``neighbours`` images of the gallery."""
        scores, trust = self.scores(rows), self.trust
        known = (self.familiar(rows) >= trust.known).tolist()
        probabilities = (scores * trust.scale).softmax(-1)
        near = self.nearest(rows, neighbours)
        names, answers = self.gallery.names, []
        for row in range(len(rows)):
            own, order = probabilities[row].tolist(), probabilities[row].argsort(descending=True).tolist()
            answers.append(
                Answer(
                    names[order[0]],
                    own[order[0]],
                    known[row],
                    tuple(names[i] for i in order if own[i] >= trust.likely) or (names[order[0]],),
                    dict(zip(names, own, strict=True)),
                    near[row],
                )
            )
        return answers

    def nearest(self, rows: Shaped[Tensor, "n *row"], neighbours: int) -> list[tuple[Neighbour, ...]]:
        """Returns for each prepared row the most similar images of the gallery, the nearest first."""
        if not len(self.gallery):
            return [()] * len(rows)
        similar = functional.normalize(self.features_of(rows), dim=-1) @ self.features.mT
        near, which = similar.topk(min(neighbours, len(self.gallery)), dim=-1)
        pairs = zip(which.tolist(), near.tolist(), strict=True)
        return [tuple(self._neighbour(i, s) for i, s in zip(*pair, strict=True)) for pair in pairs]

    @cached_property
    def features(self) -> Float[Tensor, "n dim"]:
        """The features of the gallery's images, shape ``(n, dim)``, each of length 1."""
        return functional.normalize(self._own, dim=-1)

    @cached_property
    def _own(self) -> Float[Tensor, "n dim"]:
        """The features of the gallery's images as the encoder gives them."""
        return self.features_of(self.gallery.rows)

    @cached_property
    def self_test(self) -> SelfTest:
        """The test of the model on its own images. It runs when one of its results is first used."""
        name, ways = self.representation.name if self.representation else "", len(self.gallery.names)
        size = self.learner.encoder.preprocess.size
        shipped, classified = None, self.point_space.measured
        if name and ways > 1:
            shipped = shipped_trust(name, self.head, ways, self.false_alarms, size, classified=classified)
        return SelfTest(
            self.learner,
            self.gallery,
            self.point_space.points(self._own),
            self.features,
            space=self.point_space,
            false_alarms=self.false_alarms,
            shipped=shipped,
            learned=self.tuning is not None,
        )

    @cached_property
    def trust(self) -> Trust:
        """The expected accuracy and the calibration of the model; see :class:`metarep.model.trust.trust.Trust`."""
        if self.tuning is not None:
            return self.tuning.trust_of(self.gallery.names)
        return self.self_test.trust().lowered(self.adapting.discount if self.adapting else 0.0)

    @property
    def held_out(self) -> HeldOut:
        """The scores of the gallery's images, with one image of every class left out at a time."""
        return self.self_test.held_out

    @property
    def copies(self) -> list[list[int]]:
        """Groups of rows of the gallery whose images are near copies of each other; they are left out together."""
        return self.self_test.copies

    @cached_property
    def suspects(self) -> list[Suspect]:
        """Images of the gallery that look as if they were in the wrong class."""
        return self.self_test.suspects(self.trust)

    def familiar(self, rows: Shaped[Tensor, "n *row"]) -> Float[Tensor, " n"]:
        """Returns how similar each row is to the classes, shape ``(n,)``; unknown images score below ``known``."""
        return self.self_test.familiarity.score(self.points_of(rows))

    def points_of(self, rows: Shaped[Tensor, "n *row"]) -> Float[Tensor, "n points"]:
        """Returns the points of prepared rows, shape ``(n, points)``."""
        return self.point_space.points(self.features_of(rows))

    @cached_property
    def point_space(self) -> PointSpace:
        """The space that the familiarity of the model compares images in."""
        return PointSpace.of(self.learner.encoder, self.representation.name if self.representation else "")

    @cached_property
    def state(self) -> dict[str, Tensor]:
        """The state of the learner after adapting to the gallery, as a batch of one task."""
        gallery = self.gallery
        with torch.no_grad():
            return self.learner.adapt(gallery.rows.unsqueeze(0), gallery.classes.unsqueeze(0), len(gallery.names))

    def features_of(self, rows: Shaped[Tensor, "n *row"]) -> Float[Tensor, "n dim"]:
        """Returns the features of prepared rows, shape ``(n, dim)``; see :meth:`Learner.features_of`."""
        with torch.no_grad():
            return self.learner.features_of(rows)

    def _neighbour(self, row: int, similarity: float) -> Neighbour:
        gallery = self.gallery
        label = gallery.names[int(gallery.classes[row])]
        return Neighbour(int(gallery.ids[row]), gallery.items[row], label, similarity)
