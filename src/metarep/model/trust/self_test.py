"""SelfTest: what a model says of its own images when they are left out, and what follows from that for new ones."""

import math
from collections import defaultdict
from dataclasses import replace
from functools import cached_property
from statistics import fmean

import torch
from jaxtyping import Float, Int
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
from metarep.model.trust.units import join_groups

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
    def _near(self) -> Tensor:
        """A number for each image of the gallery, which near copies of each other share."""
        return near_copies(self.unit, self.gallery.hashed) if len(self.gallery) else self.gallery.classes

    @cached_property
    def units(self) -> Tensor:
        """A number for each image, shared by near copies and by a group of a class: they are left out together."""
        return join_groups(self._near, self.gallery.grouped, self.gallery.classes)

    @property
    def copies(self) -> list[list[int]]:
        """Groups of rows whose images are near copies of each other."""
        groups: dict[int, list[int]] = {}
        for row, near in enumerate(self._near.tolist()):
            groups.setdefault(near, []).append(row)
        return [rows for rows in groups.values() if len(rows) > 1]

    @cached_property
    def _folds(self) -> list[Int[Tensor, " _"]]:
        """The rows that are left out together, one image of every class at a time."""
        most = MOST if len(self.gallery) <= MANY else FEW
        return deal_folds(self.gallery.classes, self.units, most=most) if self.ways > 1 and not self.learned else []

    @cached_property
    def _pairs(self) -> list[tuple[int, Int[Tensor, " _"]]]:
        """For classes that keep one image: its row and the rows that are left out; none if every class is tested."""
        classes = self.gallery.classes
        if not self._folds or len(classes[torch.cat(self._folds)].unique()) == self.ways:
            return []
        return deal_to_one(classes, self.units, most=max(FEW, min(MOST, WORK // len(classes))))

    @cached_property
    def _scores(self) -> tuple[Tensor, ...]:
        """The scores of the rows of each fold, and then of each pair: all at once, so that a learner starts once."""
        parts = [*self._folds, *(out for _, out in self._pairs)]
        with torch.no_grad():
            found = self.learner.held_out(self.gallery.rows, self.gallery.classes, self.ways, parts)
        return found.split([len(part) for part in parts])

    @cached_property
    def held_out(self) -> HeldOut:
        """The scores of the gallery's images, with one image of every class left out at a time."""
        folds, ways = self._folds, self.ways
        if not folds:
            return HeldOut(torch.zeros(0, ways), torch.zeros(0, dtype=torch.long))
        left = images_left(folds, self.gallery.classes, ways)
        return HeldOut(torch.cat(self._scores[: len(folds)]), torch.cat(folds), left)

    @cached_property
    def alone(self) -> Float[Tensor, " classes"] | None:
        """How often images are answered rightly if only one image of their class is left: a share for some classes.

        This is measured if there are classes that cannot be tested, because they have a single image; else it is None.
        """
        found = self._scores[len(self._folds) :] if self._pairs else ()
        shares: defaultdict[int, list[float]] = defaultdict(list)
        for (kept, out), scores in zip(self._pairs, found, strict=True):
            own, others = int(self.gallery.classes[kept]), self.units[out] != self.units[kept]
            shares[own].append((scores.argmax(-1) == own)[others].double().mean().item())
        return torch.tensor([fmean(each) for each in shares.values()]) if shares else None

    def trust(self) -> Trust:
        """The trust that follows from the held-out scores; where there are too few, that of the encoder beforehand."""
        held, classes = self.held_out, self.gallery.classes
        known, alarms = self._known(), self.false_alarms
        own = measure_trust(held, classes, self.ways, alarms, known=known, alone=self.alone, units=self.units)
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
