"""SelfTest: what a model says of its own images when they are left out, and what follows from that for new ones."""

import math
from collections import defaultdict
from dataclasses import replace
from functools import cached_property
from statistics import fmean

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarep.data.copies.near_copies import near_copies
from metarep.learners import Learner
from metarep.model.gallery import Gallery
from metarep.model.trust.familiarity import Familiarity, familiarity
from metarep.model.trust.folds import MOST, deal_folds, deal_to_one, images_left
from metarep.model.trust.points import PointSpace
from metarep.model.trust.suspects import Suspect, find_suspects
from metarep.model.trust.threshold import known_threshold
from metarep.model.trust.trust import FEWEST, HeldOut, Trust, measure_trust

MANY, FEW = 300, 5  # with more images than MANY, only FEW folds: a figure of many images needs fewer folds
WORK = 20_000  # images that classes are classified beside while they keep one image, in all


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

    @cached_property
    def alone(self) -> Float[Tensor, " classes"] | None:
        """How often images are answered rightly if only one image of their class is left: a share for some classes.

        This is measured if there are classes that cannot be tested, because they have a single image; else it is None.
        """
        gallery, tested = self.gallery, self.gallery.classes[self.held_out.rows].unique()
        if not 0 < len(tested) < self.ways:
            return None
        most = max(FEW, min(MOST, WORK // len(gallery)))
        pairs = [each for each in deal_to_one(gallery.classes, most=most) if self._others(*each).any()]
        with torch.no_grad():
            found = self.learner.held_out(gallery.rows, gallery.classes, self.ways, [out for _, out in pairs])
        shares: defaultdict[int, list[float]] = defaultdict(list)
        for (kept, out), scores in zip(pairs, found.split([len(out) for _, out in pairs]), strict=True):
            own = int(gallery.classes[kept])
            shares[own].append((scores.argmax(-1) == own)[self._others(kept, out)].double().mean().item())
        return torch.tensor([fmean(each) for each in shares.values()])

    def _others(self, kept: int, out: Int[Tensor, " k"]) -> Bool[Tensor, " k"]:
        """Which of the rows are not copies of the one that is kept."""
        return self.units[out] != self.units[kept]

    def trust(self) -> Trust:
        """The trust that follows from the held-out scores; where there are too few, that of the encoder beforehand."""
        held, classes = self.held_out, self.gallery.classes
        own = measure_trust(held, classes, self.ways, self.false_alarms, known=self._known(), alone=self.alone)
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
