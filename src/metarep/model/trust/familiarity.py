"""Familiarity scores how similar an image is to the classes of a gallery; a threshold rejects unknown images."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy.special import betainc, ndtri, stdtrit
from torch import Tensor
from torch.nn import functional

from metarep.model.trust.points import PLAIN, PointSpace

SHARPNESS = 12.0  # factor on the cosines in the soft maximum over classes
SHORT = 0.2  # centred points of photographs are 0.5 to 1.1 long
FEW = 10  # with fewer images, their lowest score is not a reliable quantile
EARLY = 2.5  # how fast the estimate of a quantile becomes that of Harrell and Davis, in ranks of the wanted score
LASTING = 1.5  # what more images of a class leave of the variance of a cosine with its mean, in variances of one image
FAMILIAR = 20.0  # the largest weight of the mean of photographs in general, in classes


@dataclass(frozen=True)
class Familiarity:
    """Scores how similar an image is to the classes of a gallery. It does not depend on the learner.

    The points of images (:class:`metarep.model.trust.points.PointSpace`) are centred by a mean. Centring removes what
    all photographs share. The score of an image is the soft maximum of its cosines with the class means, divided by a
    power of the length of its centred point. The mean is that of the gallery, shrunk towards the mean of photographs in
    general where the two are near. With few classes the gallery's own mean is close to the class means themselves. The
    amount of shrinkage is an empirical Bayes estimate (Efron and Morris, 1973).

    Args:
        mean: the vector that is subtracted from the points, shape ``(dim,)``.
        prototypes: the mean of the centred points of each class, shape ``(ways, dim)``. They are not of length 1.
        root: the exponent of the length; see :attr:`metarep.model.trust.points.PointSpace.root`.
    """

    mean: Float[Tensor, " dim"]
    prototypes: Float[Tensor, "ways dim"]
    root: float = 0.0

    def score(self, points: Float[Tensor, "n dim"]) -> Float[Tensor, " n"]:
        """Returns the score of each image, shape ``(n,)``, from its point.

        A higher score means more like one of the classes. An image that equals its class mean scores about 1, if its
        centred point has length 1.
        """
        centred = points - self.mean
        cosines = functional.normalize(centred, dim=-1) @ functional.normalize(self.prototypes, dim=-1).mT
        return _score(cosines, centred, self.root)


def familiarity(
    points: Float[Tensor, "n dim"],
    classes: Int[Tensor, " n"],
    ways: int,
    space: PointSpace = PLAIN,
) -> Familiarity:
    """Computes the familiarity of a gallery.

    Args:
        points: the points of its images, shape ``(n, dim)``.
        classes: the class index of each image, shape ``(n,)``.
        ways: the number of classes.
        space: where the points come from.

    >>> moths_and_flies = familiarity(torch.eye(2), torch.tensor([0, 1]), 2)
    >>> [round(score, 2) for score in moths_and_flies.score(torch.tensor([[1.0, 0.0], [-1.0, -1.0]])).tolist()]
    [1.0, 0.06]
    """
    mean = _mean(points, _weight(points, classes, ways, space.general), space.general)
    return Familiarity(mean, _prototypes(points - mean, classes, ways), space.root)


def held_out_familiarity(
    points: Float[Tensor, "n dim"],
    classes: Int[Tensor, " n"],
    ways: int,
    units: Int[Tensor, " n"],
    space: PointSpace = PLAIN,
    *,
    carried: bool = True,
) -> Float[Tensor, " tested"]:
    """Computes the scores that the images of a gallery would have if each was left out together with its copies.

    A formula replaces the loop over images. Leaving rows out changes the prototype of their class. It also moves the
    mean by a known vector, and with it every prototype by that same vector.

    Args:
        points, classes, ways, space: see :func:`familiarity`.
        units: a number for each image, shape ``(n,)``. Images with the same number are copies of each other, and are
            left out together.
        carried: whether to carry the cosines with the own class to what they would be with all of its images. They
            rise, because the mean of ``k`` unit vectors with pairwise cosine ``s`` has the length
            ``sqrt(s + (1 - s) / k)``. They also spread less, because the chance of ``k`` images has a variance of
            ``1 / k``; that of classes and of the image that is left out stays, and is ``LASTING`` times that of one
            image. This ratio was chosen on training classes of Caltech-101.

    Returns:
        The scores, shape ``(tested,)``, in the order of the gallery. An image is not tested if its class has no other
        unit.
    """
    weight = _weight(points, classes, ways, space.general)
    centred = points - _mean(points, weight, space.general)
    sums = centred.new_zeros(ways, centred.shape[1]).index_add(0, classes, centred)
    counts = classes.bincount(minlength=ways).to(centred)
    prototypes = sums / counts.unsqueeze(1)
    together = functional.normalize(centred, dim=-1)
    unit_of = (classes * (int(units.max()) + 1) + units).unique(return_inverse=True)[1]  # a unit lies within a class
    own_sum = centred.new_zeros(int(unit_of.max()) + 1, centred.shape[1]).index_add(0, unit_of, centred)
    size = unit_of.bincount().to(centred)
    out, many = own_sum[unit_of], size[unit_of].unsqueeze(1)
    shift = out / (len(points) + weight - many)  # by this every centred row moves when the mean is that of the others
    moved = centred + shift
    query = functional.normalize(moved, dim=-1)
    left = counts[classes].unsqueeze(1) - many
    rest = (sums[classes] - out) / left.clamp_min(1) + shift
    own = (query * functional.normalize(rest, dim=-1)).sum(1)
    if carried:
        own = own * _lengthened(together, classes, ways, left.flatten(), counts[classes])
        own = _narrowed(own, left.flatten(), counts[classes])
    squares = prototypes.square().sum(1) + 2 * shift @ prototypes.mT + shift.square().sum(1, keepdim=True)
    cosines = (query @ prototypes.mT + (query * shift).sum(1, keepdim=True)) / squares.clamp_min(1e-12).sqrt()
    cosines = cosines.scatter(1, classes.unsqueeze(1), own.unsqueeze(1))
    return _score(cosines, moved, space.root)[left.flatten() > 0]


def known_threshold(
    points: Float[Tensor, "n dim"],
    classes: Int[Tensor, " n"],
    ways: int,
    units: Int[Tensor, " n"],
    space: PointSpace = PLAIN,
    false_alarms: float = 0.05,
) -> float:
    """Returns the familiarity below which an image belongs to none of the classes.

    The threshold is a low quantile of the held-out scores. How it is estimated depends on the number of images ``n``:

    - With enough images it is the quantile estimate of Harrell and Davis (1982). That is a weighted mean of many of the
      lowest scores, which varies less than a single score. With few scores that estimate is too high, so a lower
      quantile is estimated. Its share falls to 0, which is the lowest score, as the rank of the wanted one falls to 1.
    - With fewer, the wanted quantile lies below the lowest score, which has a share of about ``1 / (n + 1)`` below it.
      The threshold is then the lowest score minus the distance of these two quantiles of a normal distribution.
    - With fewer than ten, it is the lower end of a prediction interval (Student's t). The images of a class share its
      mean, so each class costs a degree of freedom.

    Args:
        points, classes, ways, units, space: see :func:`held_out_familiarity`.
        false_alarms: the share of images of known classes that may score lower, between 0 and 1.

    Returns:
        The threshold; minus infinity if fewer than two images can be left out.
    """
    several = torch.stack([classes, units], 1).unique(dim=0)[:, 0].bincount(minlength=ways) > 1  # classes with a test
    enough = false_alarms * (int(several[classes].sum()) + 1) >= 1
    scores = held_out_familiarity(points, classes, ways, units, space, carried=enough)
    return quantile_of(scores, int(several.sum()), false_alarms)


def quantile_of(scores: Float[Tensor, " n"], ways: int, false_alarms: float = 0.05) -> float:
    """Returns the threshold of :func:`known_threshold` for given held-out scores of images of ``ways`` classes.

    >>> round(quantile_of(torch.linspace(0, 1, 101), 5), 2)
    0.05
    """
    n, scores = len(scores), scores.double().sort().values
    if n < 2:
        return -math.inf
    if n < FEW:
        free = max(1, n - ways)
        return (scores.mean() - stdtrit(free, 1 - false_alarms) * scores.std() * math.sqrt(1 + 1 / n)).item()
    rank = false_alarms * (n + 1)  # of the wanted score, from 1
    if rank < 1:
        apart = ndtri(1 - false_alarms) - ndtri(n / (n + 1))
        return (scores[0] - apart * scores.std()).item()
    share = max(1e-9, false_alarms * -math.expm1(EARLY * (1 - rank)))
    edges = betainc((n + 1) * share, (n + 1) * (1 - share), torch.arange(n + 1).numpy() / n)
    return (scores * torch.from_numpy(edges).diff()).sum().item()


def _score(cosines: Float[Tensor, "n ways"], centred: Float[Tensor, "n dim"], root: float) -> Float[Tensor, " n"]:
    """Returns the score of each image, shape ``(n,)``. The soft maximum is a smooth upper bound of the largest cosine.

    Lengths below ``SHORT`` count as that, so that an image at the very mean is not familiar.
    """
    largest = (SHARPNESS * cosines).logsumexp(1) / SHARPNESS
    return largest / centred.norm(dim=-1).clamp_min(SHORT) ** root if root else largest


def _mean(points: Tensor, weight: float, general: Tensor | None) -> Float[Tensor, " dim"]:
    """Returns the mean of the points, shrunk towards ``general``, which counts for ``weight`` images."""
    if general is None:
        return points.sum(0) * (weight == 0) / len(points)
    return (points.sum(0) + weight * general.to(points)) / (len(points) + weight)


def _weight(points: Tensor, classes: Tensor, ways: int, general: Tensor | None) -> float:
    """Returns the number of images that the mean of photographs in general counts for.

    Products of different classes give an unbiased estimate of the squared distance between the two means. The mean
    squared distance of the classes minus that estimate is the variance of the classes. The ratio of variance to squared
    distance is the weight, in classes.
    """
    if ways == 1:
        return math.inf if general is None else 1e6  # a single class is equal to its own mean
    if general is None:
        return 0.0
    apart = _prototypes(points - general.to(points), classes, ways)
    squares = apart.square().sum(1)
    shift = (apart.sum(0).square().sum() - squares.sum()).clamp_min(0) / (ways * (ways - 1))
    classes_of_weight = ((squares.mean() - shift) / shift.clamp_min(1e-3)).clamp(0, FAMILIAR)
    return classes_of_weight.item() * len(points) / ways


def _prototypes(centred: Tensor, classes: Tensor, ways: int) -> Float[Tensor, "ways dim"]:
    """Returns the mean of the centred points of each class."""
    sums = centred.new_zeros(ways, centred.shape[1]).index_add(0, classes, centred)
    return sums / classes.bincount(minlength=ways).clamp_min(1).unsqueeze(1)


def _lengthened(together: Tensor, classes: Tensor, ways: int, left: Tensor, counts: Tensor) -> Float[Tensor, " n"]:
    """Returns the factor by which the cosine with a class mean rises from ``left`` images to ``counts``."""
    sums = together.new_zeros(ways, together.shape[1]).index_add(0, classes, together)
    sizes = classes.bincount(minlength=ways).to(together)
    several = sizes > 1
    pairs = (sums.square().sum(1) - sizes)[several] / (sizes * (sizes - 1))[several]
    shared = pairs.mean().clamp(0.05, 0.99)
    return ((shared + (1 - shared) / left.clamp_min(1)) / (shared + (1 - shared) / counts)).sqrt()


def _narrowed(own: Float[Tensor, " n"], left: Tensor, counts: Tensor) -> Float[Tensor, " n"]:
    """Returns cosines with means of ``left`` images, with the spread of cosines with means of ``counts`` images."""
    tested = left > 0
    spread = ((LASTING + 1 / counts) / (LASTING + 1 / left.clamp_min(1))).sqrt()
    return torch.lerp(own[tested].mean(), own, spread)
