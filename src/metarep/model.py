"""Model: a representation, a learner and a gallery. What people use; fit, predict, the server and the page are this."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor
from torch.nn import functional

from metarep.device import keep_freed_memory
from metarep.encoders import Encoder, Preprocess
from metarep.errors import MetarepError, unknown
from metarep.gallery import Gallery
from metarep.learners import LEARNERS, Learner
from metarep.one_shot import shipped_trust
from metarep.photographs import read_images
from metarep.pretrained import Representation
from metarep.trust import FEWEST, Suspect, Trust, find_suspects, measure_trust

# For encoders trained for something else: what did best on photographs of unseen classes (docs/your-own-images.md).
HEAD = {"name": "linear", "solver": "ridge", "strength": 0.5, "power": 0.5, "centre": True}


@dataclass(frozen=True)
class Neighbour:
    """An image of the gallery that a query looked like.

    Args:
        id, item, label: which, what it is called, of what class.
        similarity: cosine of the features.
    """

    id: int
    item: str
    label: str
    similarity: float


@dataclass(frozen=True)
class Answer:
    """What a model says of an image.

    Args:
        label: the likeliest class.
        probability: that it is this class, if it is any.
        known: False if the image is like none of the classes.
        label_set: the classes that it may well be, the likeliest first; see :class:`metarep.trust.Trust`.
        probabilities: of all classes, by name.
        neighbours: the most similar images of the gallery, the nearest first.
    """

    label: str
    probability: float
    known: bool
    label_set: tuple[str, ...]
    probabilities: dict[str, float]
    neighbours: tuple[Neighbour, ...]


class Model:
    """A few-shot classifier of somebody's own classes. Immutable: :meth:`changed` makes another with other images.

    Args:
        representation: from images to features; None where features are what is given.
        head: name and settings of the learner; ``{"name": "trained"}`` for the one the representation was trained
            with; None for that one, or else ``HEAD``.
        gallery: what it was shown.
        false_alarms: see :class:`metarep.trust.Trust`.

    Raises:
        MetarepError: an unknown learner, none that was trained with the encoder, or false alarms that are no share.
    """

    def __init__(
        self,
        representation: Representation | None,
        head: dict[str, Any] | None = None,
        gallery: Gallery | None = None,
        *,
        false_alarms: float = 0.05,
    ) -> None:
        if not 0 < false_alarms < 1:
            raise MetarepError(f"false_alarms is a share, above 0 and below 1, not {false_alarms}")
        self.representation, self.false_alarms = representation, false_alarms
        self.gallery = gallery if gallery is not None else Gallery.empty()
        trained = representation.learner if representation else None
        self.head = head or ({"name": "trained"} if trained is not None else HEAD)
        name, settings = self.head["name"], {key: value for key, value in self.head.items() if key != "name"}
        if name == "trained":
            if trained is None:
                raise MetarepError(
                    "no learner for any number of classes was trained with this encoder; take another head"
                )
            self.learner = trained
        elif name not in LEARNERS:
            raise unknown("learner", name, LEARNERS)
        else:
            self.learner: Learner = LEARNERS[name](self._encoder(), **settings)
        self.learner.eval()

    def changed(self, gallery: Gallery) -> "Model":
        """The same with another gallery."""
        return Model(self.representation, self.head, gallery, false_alarms=self.false_alarms)

    def prepare(self, images: Any, *, batch: int = 64) -> Shaped[Tensor, "n *row"]:  # noqa: ANN401
        """What the learner prepares of images of any kind; of features, without an encoder, themselves."""
        if self.representation is None:
            return torch.from_numpy(np.array(images))
        rows = [rows for _, rows in self.read(images, batch=batch)]
        if not rows:
            raise MetarepError("there are no images")
        return torch.cat(rows)

    def read(
        self,
        images: Any,  # noqa: ANN401 - whatever people have
        *,
        batch: int = 64,
    ) -> Iterator[tuple[UInt8[Tensor, "b c h w"], Shaped[Tensor, "b *row"]]]:
        """Images of any kind, a few at a time: their pixels at the encoder's size, and what the learner prepares.

        Raises:
            DataError: an image that cannot be read; see :func:`metarep.photographs.read_images`.
        """
        keep_freed_memory()
        for pixels in read_images(images, self.learner.encoder.preprocess, batch=batch):
            with torch.no_grad():
                yield pixels, self.learner.prepare(pixels)

    def scores(self, rows: Shaped[Tensor, "n *row"]) -> Float[Tensor, "n ways"]:
        """Logits of prepared rows, for the classes of the gallery in its order.

        Raises:
            MetarepError: there are no classes yet.
        """
        if not len(self.gallery):
            raise MetarepError("the model has no classes yet; add some images first")
        if len(self.gallery.names) == 1:
            return rows.new_zeros(len(rows), 1)  # a single class: nothing to tell it from
        with torch.no_grad():
            return self.learner.logits(self._state, rows.unsqueeze(0))[0]

    def answer(self, rows: Shaped[Tensor, "n *row"], neighbours: int = 3) -> list[Answer]:
        """What to say of prepared rows."""
        scores, trust = self.scores(rows), self.trust
        probabilities = (scores * trust.scale).softmax(-1)
        near = self.nearest(rows, neighbours)
        names, found = self.gallery.names, []
        for row in range(len(rows)):
            own, order = probabilities[row].tolist(), probabilities[row].argsort(descending=True).tolist()
            found.append(
                Answer(
                    names[order[0]],
                    own[order[0]],
                    bool(scores[row].max() >= trust.known),
                    tuple(names[i] for i in order if own[i] >= trust.likely) or (names[order[0]],),
                    dict(zip(names, own, strict=True)),
                    near[row],
                )
            )
        return found

    def nearest(self, rows: Shaped[Tensor, "n *row"], neighbours: int) -> list[tuple[Neighbour, ...]]:
        """The images of the gallery that each prepared row is most similar to, the nearest first."""
        if not len(self.gallery):
            return [()] * len(rows)
        similar = functional.normalize(self._features(rows), dim=-1) @ self.features.mT
        near, which = similar.topk(min(neighbours, len(self.gallery)), dim=-1)
        pairs = zip(which.tolist(), near.tolist(), strict=True)
        return [tuple(self._neighbour(i, s) for i, s in zip(*pair, strict=True)) for pair in pairs]

    @cached_property
    def features(self) -> Float[Tensor, "n dim"]:
        """Features of the gallery's images, each of length one."""
        return functional.normalize(self._features(self.gallery.rows), dim=-1)

    @cached_property
    def left_out(self) -> tuple[Float[Tensor, "tested ways"], Tensor]:
        """Scores of each image when it is left out, and their rows; images that are alone in their class are not."""
        gallery = self.gallery
        rows = (gallery.counts[gallery.classes] > 1).nonzero().flatten()
        if len(gallery.names) < 2 or not len(rows):
            return torch.zeros(0, len(gallery.names)), rows[:0]
        with torch.no_grad():
            scores = self.learner.leave_one_out(gallery.rows, gallery.classes, len(gallery.names))
        return scores[rows], rows

    @cached_property
    def trust(self) -> Trust:
        """By leave-one-out; where too few images can be left out, calibrated by what was measured of the encoder, if
        anything was.
        """
        scores, rows = self.left_out
        ways = len(self.gallery.names)
        own = measure_trust(scores, self.gallery.classes[rows], self.false_alarms)
        if own.tested >= FEWEST or self.representation is None or ways < 2:
            return own
        size = self.learner.encoder.preprocess.size
        shipped = shipped_trust(self.representation.name, self.head, ways, self.false_alarms, size)
        if shipped is None or not own.tested:
            return shipped or own
        return replace(shipped, accuracy=own.accuracy, interval=own.interval, tested=own.tested, source=own.source)

    @cached_property
    def suspects(self) -> list[Suspect]:
        """Images that look as if they were in the wrong class."""
        scores, rows = self.left_out
        if not len(rows):
            return []
        return find_suspects(scores, self.gallery.classes[rows], self.trust.scale, rows.tolist())

    @cached_property
    def _state(self) -> dict[str, Tensor]:
        gallery = self.gallery
        with torch.no_grad():
            return self.learner.adapt(gallery.rows.unsqueeze(0), gallery.classes.unsqueeze(0), len(gallery.names))

    def _features(self, rows: Tensor) -> Tensor:
        """Features of prepared rows; where the body is adapted to each task, rows are images."""
        if rows.ndim == 2:
            return rows
        with torch.no_grad():
            return self.learner.embed(rows)

    def _neighbour(self, row: int, similarity: float) -> Neighbour:
        gallery = self.gallery
        label = gallery.names[int(gallery.classes[row])]
        return Neighbour(int(gallery.ids[row]), gallery.items[row], label, similarity)

    def _encoder(self) -> Encoder:
        if self.representation:
            return self.representation.encoder
        return Encoder(torch.nn.Flatten(), Preprocess((1, 1), 1, (0.0,), (1.0,)))  # never run: features are given


def confusion(model: Model) -> Float[Tensor, "ways ways"]:
    """How often an image of the class of each row is taken for that of each column when it is left out."""
    scores, rows = model.left_out
    ways = len(model.gallery.names)
    told = model.gallery.classes[rows] * ways + scores.argmax(-1) if len(rows) else rows
    return told.bincount(minlength=ways * ways).view(ways, ways).float()
