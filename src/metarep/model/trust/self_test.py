"""SelfTest: what a model says of its own images when they are left out, and what follows from that for new ones."""

import math
from dataclasses import replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from metarep.data.copies.near_copies import near_copies
from metarep.learners import Learner
from metarep.model.gallery import Gallery
from metarep.model.trust.familiarity import Familiarity, familiarity
from metarep.model.trust.folds import MOST, deal_folds, images_left
from metarep.model.trust.points import PointSpace
from metarep.model.trust.suspects import Suspect, find_suspects
from metarep.model.trust.threshold import known_threshold
from metarep.model.trust.trust import FEWEST, HeldOut, Trust, measure_trust

MANY, FEW = 300, 5  # with more images than MANY, only FEW folds: a figure of many images needs fewer folds


class SelfTest:
    """Measures a model on its own images. Each result is computed when it is first used, and kept.

    Args:
        learner: the learner of the model.
        gallery: the images that it was shown.
        points: their points.
        unit: their features, each of length 1.
        space: where the points come from.
        false_alarms: see :class:`metarep.model.trust.trust.Trust`.
        shipped: the trust that was measured of this encoder beforehand, for galleries with too few images to leave out.
        learned: whether the encoder has learned these images, so that leaving one out of the gallery tests nothing.
    """

    def __init__(
        self,
        learner: Learner,
        gallery: Gallery,
        points: Float[Tensor, "n points"],
        unit: Float[Tensor, "n dim"],
        *,
        space: PointSpace,
        false_alarms: float,
        shipped: Trust | None,
        learned: bool = False,
    ) -> None:
        self.learner, self.gallery, self.points, self.unit = learner, gallery, points, unit
        self.space, self.false_alarms, self.shipped, self.learned = space, false_alarms, shipped, learned
        self.ways = len(gallery.names)

    @cached_property
    def units(self) -> Tensor:
        """A number for each image of the gallery; near copies of each other share it and are left out together."""
        return near_copies(self.unit, self.gallery.hashed) if len(self.gallery) else self.gallery.classes

    @property
    def copies(self) -> list[list[int]]:
        """Groups of rows whose images are near copies of each other."""
        groups: dict[int, list[int]] = {}
        for row, unit in enumerate(self.units.tolist()):
            groups.setdefault(unit, []).append(row)
        return [rows for rows in groups.values() if len(rows) > 1]

    @cached_property
    def held_out(self) -> HeldOut:
        """The scores of the gallery's images, with one image of every class left out at a time."""
        gallery, ways = self.gallery, self.ways
        folds = (
            deal_folds(gallery.classes, self.units, most=MOST if len(gallery) <= MANY else FEW)
            if ways > 1 and not self.learned
            else []
        )
        if not folds:
            return HeldOut(torch.zeros(0, ways), torch.zeros(0, dtype=torch.long))
        with torch.no_grad():
            scores = self.learner.held_out(gallery.rows, gallery.classes, ways, folds)
        return HeldOut(scores, torch.cat(folds), images_left(folds, gallery.classes, ways))

    def trust(self) -> Trust:
        """The trust that follows from the held-out scores; where there are too few, that of the encoder beforehand."""
        own = measure_trust(self.held_out, self.gallery.classes, self.ways, self.false_alarms, known=self._known())
        if own.tested >= FEWEST or self.shipped is None:
            return own
        if not own.tested:
            return self.shipped
        measured = {name: getattr(own, name) for name in ("accuracy", "interval", "tested", "source", "classes")}
        return replace(self.shipped, **measured)

    def suspects(self, trust: Trust) -> list[Suspect]:
        """Images that look as if they were in the wrong class."""
        return find_suspects(self.held_out, self.gallery.classes, trust.scale) if len(self.held_out.rows) else []

    @cached_property
    def familiarity(self) -> Familiarity:
        """The similarity of an image to the classes of the gallery; it does not depend on the learner."""
        return familiarity(self.points, self.gallery.classes, self.ways, self.space)

    def _known(self) -> float:
        """The familiarity below which an image is none of the classes."""
        gallery = self.gallery
        if not self.ways or int(gallery.counts.max()) < 2:
            return -math.inf
        return known_threshold(self.points, gallery.classes, self.ways, self.units, self.space, self.false_alarms)
