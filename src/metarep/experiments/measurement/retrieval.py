"""Retrieval: whether the nearest images of an image are of its class, as metric learning measures it."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.encoders.modes import evaluating
from metarep.errors import DataError, MetarepError, one_of
from metarep.learners import Learner
from metarep.learners.distances import squared_distances
from metarep.learners.learner import Metric

KS = (1, 2, 4, 8)
FAR = 100.0  # times as far from the origin as from their mean: cosines of 1 - 1 / 20,000, where float32 has 1 / 2**24
VALUES = 1 << 24  # similarities that are held at a time: 64 MB
AT_ONCE = 4096  # rows that are held in float64 at a time


class FarFeaturesWarning(UserWarning):
    """Warns that float32 has too few digits for the cosines of some features."""


@dataclass(frozen=True)
class Retrieval:
    """How many of the nearest images are of the class of an image. All shares are in percent, means over images.

    Args:
        recall: for each ``k``, the share of images with at least one of their class among the ``k`` nearest.
        r_precision: share of the ``R`` nearest that are of the class of the image, where ``R`` is the number of other
            images of that class.
        map_at_r: mean average precision at ``R``: the mean over the ``R`` nearest of the precision up to each of them
            that is of the class; the others count 0. Unlike recall, it grows with every right image and its place.
        queries: the number of images that were searched with. An image that is alone in its class is not.
        gallery: the number of images that were searched in. An image does not find itself.
        metric: ``cosine`` or ``euclidean``.

    >>> str(Retrieval({1: 90.0, 2: 95.0}, 80.0, 70.0, 10, 11, "cosine"))
    'recall@1 90.00 %, recall@2 95.00 %, R-precision 80.00 %, MAP@R 70.00 % (10 of 11 images, cosine)'
    """

    recall: dict[int, float]
    r_precision: float
    map_at_r: float
    queries: int
    gallery: int
    metric: str

    def __str__(self) -> str:
        recall = ", ".join(f"recall@{k} {share:.2f} %" for k, share in self.recall.items())
        return (
            f"{recall}, R-precision {self.r_precision:.2f} %, MAP@R {self.map_at_r:.2f} % "
            f"({self.queries:,} of {self.gallery:,} images, {self.metric})"
        )

    def as_dict(self) -> dict[str, Any]:
        """The figures by name, with ``recall@1`` and so on."""
        recall = {f"recall@{k}": share for k, share in self.recall.items()}
        return recall | {name: value for name, value in self.__dict__.items() if name != "recall"}


@torch.no_grad()
def measure_retrieval(
    features: Float[Tensor, "n dim"] | np.ndarray,
    labels: Labels | Sequence[object] | np.ndarray | Tensor,
    ks: Sequence[int] = KS,
    metric: Metric = "cosine",
) -> Retrieval:
    """Search with each image among all others, and see which of the nearest are of its class.

    Musgrave, Belongie & Lim, A Metric Learning Reality Check, 2020. Some hundred images are searched with at a time, so
    60,000 features take little memory.

    Args:
        features: one row for each image.
        labels: the class of each image.
        ks: numbers of nearest images, for the recall.
        metric: in which features are near each other.

    Raises:
        DataError: features and labels have different lengths, a feature is NaN or infinite, or no class has two images.
        MetarepError: an unknown metric, or a ``k`` below 1.

    >>> features = torch.tensor([[0.0], [1.0], [10.0], [12.0]])
    >>> retrieval = measure_retrieval(features, list("aabb"), ks=[1], metric="euclidean")
    >>> retrieval.recall, retrieval.map_at_r
    ({1: 100.0}, 100.0)
    """
    one_of("metric", metric, get_args(Metric))
    if not ks or min(ks) < 1:
        raise MetarepError(f"recall needs at least the 1 nearest image, not {min(ks, default=0)}")
    rows, classes = checked_features(features, labels)
    if metric == "cosine":
        rows = functional.normalize(rows, dim=-1)
    own = classes.classes.to(rows.device)
    others = (classes.counts.to(rows.device) - 1)[own]
    queries = (others > 0).nonzero().squeeze(1)
    if not len(queries):
        raise DataError("no class has two images, so there is nothing to find")
    order = queries[others[queries].argsort(stable=True)]  # chunks of classes of about the same size
    totals = rows.new_zeros(len(ks) + 2, dtype=torch.float64)
    for some in order.split(max(1, VALUES // len(rows))):
        near = rows[some] @ rows.T if metric == "cosine" else -squared_distances(rows[some], rows)
        near[torch.arange(len(some), device=some.device), some] = float("-inf")
        most = int(others[some].max())
        depth = min(max(most, *ks), len(rows) - 1)
        right = own[near.topk(depth, dim=1).indices] == own[some].unsqueeze(1)
        rank = torch.arange(1, most + 1, device=right.device)
        within = right[:, :most] & (rank <= others[some].unsqueeze(1))
        precision = within.cumsum(1).double() / rank
        parts = [right[:, :k].any(1).double() for k in ks]
        parts += [within.sum(1).double() / others[some], (precision * within).sum(1) / others[some]]
        totals += torch.stack(parts).sum(1)
    shares = (100 * totals / len(queries)).tolist()
    recall = dict(zip(ks, shares, strict=False))
    return Retrieval(recall, shares[-2], shares[-1], len(queries), len(rows), metric)


def checked_features(
    features: Float[Tensor, "n dim"] | np.ndarray, labels: Labels | Sequence[object] | np.ndarray | Tensor
) -> tuple[Float[Tensor, "n dim"], Labels]:
    """Features as a float32 tensor, and their labels.

    Raises:
        DataError: they have different lengths, features are not a table of finite numbers, or it is empty.

    >>> checked_features(np.eye(2), ["b", "a"])[1].names
    ('a', 'b')
    """
    table = torch.as_tensor(features)
    if table.is_complex():
        raise DataError("features must be real numbers, and these are complex")
    if table.ndim != 2 or not table.numel():
        raise DataError(f"features must be a table with a row for each image, not of shape {tuple(table.shape)}")
    known = labels if isinstance(labels, Labels) else Labels.of(labels)
    if len(known) != len(table):
        raise DataError(f"there are {len(table):,} rows of features and {len(known):,} labels; give one for each image")
    rows = table.detach().float()
    if not bool((finite := rows.isfinite().all(1)).all()):
        raise DataError(f"row {int((~finite).nonzero()[0])} of the features has NaN or infinite values")
    _warn_if_far(table)
    return rows, known


def _warn_if_far(features: Float[Tensor, "n dim"]) -> None:
    """Give a ``FarFeaturesWarning`` if rows lie so far from the origin that float32 cannot tell their cosines."""
    mean = features.mean(0, dtype=torch.float64)
    squares = sum((part - mean).square().sum().item() for part in features.split(AT_ONCE))
    spread = (squares / len(features)) ** 0.5
    times = mean.norm().item() / spread if spread > 0 else 0.0
    if times > FAR:
        warnings.warn(
            f"the features lie {times:,.0f} times as far from the origin as from their mean, so float32 has too few "
            "digits for cosines; subtract the mean of training features from them, or compare by Euclidean distances",
            FarFeaturesWarning,
            stacklevel=4,
        )


def retrieve_split(learner: Learner, split: Split, ks: Sequence[int] = KS, batch: int = 256) -> Retrieval:
    """The retrieval figures of a learner's representation of all images of a split, in the learner's metric.

    Args:
        learner: the learner, on the device to use.
        split: images and labels of classes that were not trained on.
        ks: numbers of nearest images, for the recall.
        batch: number of images encoded at a time.

    Raises:
        DataError: an image has NaN or infinite features, or no class has two images.
    """
    with torch.no_grad(), evaluating(learner):
        rows = torch.arange(len(split.bank)).split(batch)
        features = torch.cat([learner.embed(split.bank.pixels(index).to(learner.device)) for index in rows])
    return measure_retrieval(features, split.labels, ks, learner.metric)
