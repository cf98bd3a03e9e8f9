"""Prototypes: classification by the nearest class mean."""

import math
from collections.abc import Sequence
from typing import Any, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from metarep.encoders import Encoder
from metarep.encoders.feature_means import POWERS, centred, feature_means, powered
from metarep.encoders.feature_spread import feature_spread, whitened
from metarep.errors import MetarepError, above, one_of
from metarep.learners.class_means import class_means
from metarep.learners.class_sizes import class_counts, levels, shared_cosine, shrunk_means, sizes_differ
from metarep.learners.distances import squared_distances
from metarep.learners.learner import Metric, State
from metarep.learners.settling import Settling

EASED = 0.75  # the power of levels; with their full effect small classes take images of large ones


class Prototypes(Settling):
    """Nearest-class-mean classification: each class is the mean of its support features (its prototype).

    Snell et al., Prototypical Networks for Few-shot Learning, 2017. Trap: the distance is *squared*. Logits from plain
    distances have another scale and another gradient. If the classes of a support have different sizes, that is allowed
    for (:mod:`metarep.learners.class_sizes`); tasks that are drawn have classes of one size.

    Args:
        encoder: the representation.
        metric: ``euclidean``, minus the squared distance to the mean; ``cosine``, the cosine with the mean of
            normalised features.
        temperature: divides the logits.
        power: exponent for the absolute value of each feature; the sign stays. See
            :func:`metarep.encoders.feature_means.powered`.
        centre: put features on the unit sphere, subtract their mean over the training images
            (:attr:`Encoder.feature_means`), and put them on the unit sphere again. It comes after ``power``, which may
            then be 1 or 0.5.
        whiten: also even out the variances of centred features within the training classes or between views
            (:func:`metarep.encoders.feature_spread.whitened`), from 0, which does not, to below 1. It takes ``power``
            1, and centres in any case.
        learn_temperature: train the temperature together with the encoder, from ``temperature`` on. It is kept as its
            logarithm, so it stays above 0 (Chen et al., Meta-Baseline, 2021).

    Raises:
        MetarepError: the metric is unknown, the temperature or the power is not above 0, or ``centre`` is set and the
            encoder keeps no mean for this power, or ``whiten`` is set and it keeps no spread.

    >>> from metarep.encoders import Encoder, Preprocess
    >>> learner = Prototypes(Encoder(torch.nn.Flatten(), Preprocess((1, 1), 1, (0.0,), (1.0,))))
    >>> state = learner.adapt(torch.tensor([[[0.0], [2.0], [4.0]]]), torch.tensor([[0, 0, 1]]), ways=2)
    >>> learner.logits(state, torch.tensor([[[3.0]]]))
    tensor([[[-4., -1.]]])
    """

    unit = False  # whether the rows are as the metric compares them already
    level = True
    log_temperature: nn.Parameter | None

    def __init__(
        self,
        encoder: Encoder,
        metric: Metric = "euclidean",
        temperature: float = 1.0,
        *,
        power: float = 1.0,
        centre: bool = False,
        whiten: float = 0.0,
        learn_temperature: bool = False,
    ) -> None:
        super().__init__(encoder)
        one_of("metric", metric, get_args(Metric))
        above("temperature", temperature)
        above("power", power)
        if centre and power not in POWERS:
            raise MetarepError(f"power={power:g} cannot be centred: means are kept for powers of 1 and 0.5")
        if not 0 <= whiten < 1 or (whiten and power != 1):
            here = f"whiten={whiten:g}, power={power:g}"
            raise MetarepError(f"whiten is from 0 to below 1, and goes with power=1; here {here}")
        if centre or whiten:
            feature_means(encoder)  # refuses an encoder without
        if whiten:
            feature_spread(encoder)
        self.metric: Metric = metric
        self.temperature, self.power, self.centre, self.whiten = temperature, power, centre, whiten
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature))) if learn_temperature else None

    @property
    def kind(self) -> str:
        return f"{super().kind}, whitened" if self.whiten else super().kind

    @property
    def settings(self) -> dict[str, Any]:
        """Options that are off are left out, so that earlier versions can read a file without them."""
        own: dict[str, Any] = {"metric": self.metric, "temperature": self.temperature}
        own |= {"power": self.power} if self.power != 1 else {}
        own |= {"centre": True} if self.centre else {}
        own |= {"whiten": self.whiten} if self.whiten else {}
        return own | ({"learn_temperature": True} if self.log_temperature is not None else {})

    def adapt(
        self, support: Float[Tensor, "task support dim"], labels: Int[Tensor, "task support"], ways: int
    ) -> State:
        """The prototype of each class, ``task ways dim``; and with classes of different sizes their levels for cosines.

        Of such classes small ones have means that are more due to chance, so images of theirs seem far from them. That
        is allowed for, by levels or by :func:`metarep.learners.class_sizes.shrunk_means`; not in training mode, where
        tasks have classes of one size.
        """
        rows = self._features(support)
        means = class_means(rows, labels, ways)
        if self.training or not self.level or not sizes_differ(labels, ways):
            return {"prototypes": means}
        if self.metric == "euclidean":
            return {"prototypes": shrunk_means(means, rows, labels)}
        shared = shared_cosine(rows, labels, ways).unsqueeze(-1)
        return {"prototypes": means, "levels": levels(shared, class_counts(labels, ways).to(rows)) ** EASED}

    def logits(self, state: State, query: Float[Tensor, "task query dim"]) -> Float[Tensor, "task query ways"]:
        """The similarity of each query to each prototype, divided by the temperature."""
        query, prototypes = self._features(query), state["prototypes"]
        temperature = self.temperature if self.log_temperature is None else self.log_temperature.exp()
        if self.metric == "cosine":
            cosines = query @ functional.normalize(prototypes, dim=-1).mT
            return (cosines * state["levels"].unsqueeze(1) if "levels" in state else cosines) / temperature
        return -squared_distances(query, prototypes) / temperature

    def held_out(
        self,
        support: Float[Tensor, "n dim"],
        labels: Int[Tensor, " n"],
        ways: int,
        folds: Sequence[Int[Tensor, " _"]],
    ) -> Float[Tensor, "tested ways"]:
        """Cross-validation scores: the rows of each fold are subtracted from the sums of the classes."""
        if self.level and sizes_differ(labels.unsqueeze(0), ways):
            return super().held_out(support, labels, ways, folds)
        rows, counts = self._features(support), labels.bincount(minlength=ways)
        sums = rows.new_zeros(ways, rows.shape[1]).index_add(0, labels, rows)
        scores = []
        for out in folds:
            left = (counts - labels[out].bincount(minlength=ways)).clamp_min(1).unsqueeze(1)
            means = sums.index_add(0, labels[out], rows[out], alpha=-1) / left
            scores.append(self.logits({"prototypes": means.unsqueeze(0)}, support[out].unsqueeze(0))[0])
        return torch.cat(scores)

    def _features(self, rows: Tensor) -> Tensor:
        """Features as the metric compares them; on the unit sphere for the cosine, and after centring."""
        if self.unit:
            return rows
        if self.whiten:
            return whitened(rows, self.encoder, self.whiten)
        if self.centre:
            return centred(rows, self.encoder, self.power)
        rows = powered(rows, self.power)
        return functional.normalize(rows, dim=-1) if self.metric == "cosine" else rows
