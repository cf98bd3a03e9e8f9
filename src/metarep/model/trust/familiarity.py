"""Familiarity: how much an image is like any of the classes, and below which it is none of them."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy.special import betainc, ndtri, stdtrit
from torch import Tensor
from torch.nn import functional

POWER = 0.7  # of the size of each feature
SHARPNESS = 12.0  # of the soft maximum over classes
FEW = 10  # images of which the lowest score says little
FAMILIAR = 20.0  # classes that the mean of photographs in general counts for, at most


@dataclass(frozen=True)
class Familiarity:
    """Similarity to the classes of a gallery, whatever its learner is.

    Features are raised to a power, put on the unit sphere, and less a mean, so that what all photographs share says
    nothing. The score of an image is a soft maximum of its cosines with the class means. The mean is the gallery's,
    drawn towards the mean of photographs in general where the two are near: with few classes the gallery's own mean is
    nearly the classes themselves. How far it is drawn is an estimate of empirical Bayes (Efron and Morris, 1973).

    Args:
        mean: what is subtracted.
        prototypes: of each class, the mean of its placed features, not of length 1.
    """

    mean: Float[Tensor, " dim"]
    prototypes: Float[Tensor, "ways dim"]

    def score(self, features: Float[Tensor, "n dim"]) -> Float[Tensor, " n"]:
        """Higher is more like one of the classes; 1 is an image that is its class."""
        placed = functional.normalize(spread(features) - self.mean, dim=-1)
        return _soft_maximum(placed @ functional.normalize(self.prototypes, dim=-1).mT)


def familiarity(
    features: Float[Tensor, "n dim"],
    classes: Int[Tensor, " n"],
    ways: int,
    general: Float[Tensor, " dim"] | None = None,
) -> Familiarity:
    """The familiarity of a gallery.

    Args:
        features: of its images, as the encoder gives them.
        classes: of each image.
        ways: number of classes.
        general: mean of the spread features of photographs in general, where the encoder has one.
    """
    placed, weight = spread(features), _weight(features, classes, ways, general)
    mean = _mean(placed, weight, general)
    return Familiarity(mean, _prototypes(placed - mean, classes, ways))


def held_out_familiarity(
    features: Float[Tensor, "n dim"],
    classes: Int[Tensor, " n"],
    ways: int,
    units: Int[Tensor, " n"],
    general: Float[Tensor, " dim"] | None = None,
    *,
    carried: bool = True,
) -> Float[Tensor, " tested"]:
    """What the images of a gallery would score if each unit of copies were left out, by formula.

    Leaving rows out changes the prototype of their class, and the mean by a known vector, which moves every prototype
    by that same vector. Images whose class has no other unit are left out of the answer.

    Args:
        features, classes, ways, general: see :func:`familiarity`.
        units: images of one number are copies of each other, and left out together.
        carried: raise the cosine with the own class from the images that are left to all of them: the length of a mean
            of ``k`` unit vectors of cosine ``s`` is ``sqrt(s + (1 - s) / k)``.
    """
    weight = _weight(features, classes, ways, general)
    placed = spread(features)
    centred = placed - _mean(placed, weight, general)
    sums = centred.new_zeros(ways, centred.shape[1]).index_add(0, classes, centred)
    counts = classes.bincount(minlength=ways).to(centred)
    prototypes = sums / counts.unsqueeze(1)
    together = functional.normalize(centred, dim=-1)
    unit_of = (classes * (int(units.max()) + 1) + units).unique(return_inverse=True)[1]  # a unit lies within a class
    own_sum = centred.new_zeros(int(unit_of.max()) + 1, centred.shape[1]).index_add(0, unit_of, centred)
    size = unit_of.bincount().to(centred)
    out, many = own_sum[unit_of], size[unit_of].unsqueeze(1)
    shift = out / (len(placed) + weight - many)  # of every centred row when the mean is that of the others
    query = functional.normalize(centred + shift, dim=-1)
    left = counts[classes].unsqueeze(1) - many
    rest = (sums[classes] - out) / left.clamp_min(1) + shift
    own = (query * functional.normalize(rest, dim=-1)).sum(1)
    if carried:
        own = own * _lengthened(together, classes, ways, left.flatten(), counts[classes])
    squares = prototypes.square().sum(1) + 2 * shift @ prototypes.mT + shift.square().sum(1, keepdim=True)
    cosines = (query @ prototypes.mT + (query * shift).sum(1, keepdim=True)) / squares.clamp_min(1e-12).sqrt()
    cosines = cosines.scatter(1, classes.unsqueeze(1), own.unsqueeze(1))
    return _soft_maximum(cosines)[left.flatten() > 0]


def known_threshold(
    features: Float[Tensor, "n dim"],
    classes: Int[Tensor, " n"],
    ways: int,
    units: Int[Tensor, " n"],
    general: Float[Tensor, " dim"] | None = None,
    false_alarms: float = 0.05,
) -> float:
    """The familiarity below which an image is none of the classes; minus infinity where nothing can be left out.

    Where there are enough images for a quantile of their held-out scores it is that of Harrell and Davis (1982), which
    weighs many of the lowest scores and so varies less than one of them. The lowest of ``n`` scores has a share of
    about ``1 / (n + 1)`` below it: with fewer images the threshold lies below it by as much as the two quantiles of a
    normal distribution are apart. With fewer than ten it is the lower end of a prediction interval (Student's t; the
    images of a class share its mean, so each class costs a degree of freedom).

    Args:
        features, classes, ways, units, general: see :func:`held_out_familiarity`.
        false_alarms: the share of images of known classes that may score lower.
    """
    enough = false_alarms * (len(features) + 1) >= 1
    scores = held_out_familiarity(features, classes, ways, units, general, carried=enough).double()
    n = len(scores)
    if n < 2:
        return -math.inf
    if n < FEW:
        free = max(1, n - int(classes.unique().numel()))
        return (scores.mean() - stdtrit(free, 1 - false_alarms) * scores.std() * math.sqrt(1 + 1 / n)).item()
    if false_alarms * (n + 1) < 1:
        apart = ndtri(1 - false_alarms) - ndtri(n / (n + 1))
        return (scores.min() - apart * scores.std()).item()
    share = false_alarms * n / (n + 4)
    edges = betainc((n + 1) * share, (n + 1) * (1 - share), torch.arange(n + 1).numpy() / n)
    return (scores.sort().values * torch.from_numpy(edges).diff()).sum().item()


def spread(features: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
    """Features to a power, their sign kept, on the unit sphere."""
    return functional.normalize(features.sign() * features.abs().pow(POWER), dim=-1)


def _soft_maximum(cosines: Float[Tensor, "n ways"]) -> Float[Tensor, " n"]:
    return (SHARPNESS * cosines).logsumexp(1) / SHARPNESS


def _mean(placed: Tensor, weight: float, general: Tensor | None) -> Float[Tensor, " dim"]:
    if general is None:
        return placed.sum(0) * (weight == 0) / len(placed)
    return (placed.sum(0) + weight * general.to(placed)) / (len(placed) + weight)


def _weight(features: Tensor, classes: Tensor, ways: int, general: Tensor | None) -> float:
    """How many images the mean of photographs in general counts for.

    The squared distance of the two means, without what chance adds, comes from pairs of different classes. What is left
    of the mean squared distance of the classes is their spread. The ratio of the two is the weight, in classes.
    """
    if ways == 1:
        return math.inf if general is None else 1e6  # its own mean would leave nothing of a single class
    if general is None:
        return 0.0
    apart = _prototypes(spread(features) - general.to(features), classes, ways)
    squares = apart.square().sum(1)
    shift = (apart.sum(0).square().sum() - squares.sum()).clamp_min(0) / (ways * (ways - 1))
    classes_of_weight = ((squares.mean() - shift) / shift.clamp_min(1e-3)).clamp(0, FAMILIAR)
    return classes_of_weight.item() * len(features) / ways


def _prototypes(centred: Tensor, classes: Tensor, ways: int) -> Float[Tensor, "ways dim"]:
    sums = centred.new_zeros(ways, centred.shape[1]).index_add(0, classes, centred)
    return sums / classes.bincount(minlength=ways).clamp_min(1).unsqueeze(1)


def _lengthened(together: Tensor, classes: Tensor, ways: int, left: Tensor, counts: Tensor) -> Float[Tensor, " n"]:
    """By how much the cosine with a class mean rises from ``left`` images to ``counts``."""
    sums = together.new_zeros(ways, together.shape[1]).index_add(0, classes, together)
    sizes = classes.bincount(minlength=ways).to(together)
    several = sizes > 1
    pairs = (sums.square().sum(1) - sizes)[several] / (sizes * (sizes - 1))[several]
    shared = pairs.mean().clamp(0.05, 0.99)
    return ((shared + (1 - shared) / left.clamp_min(1)) / (shared + (1 - shared) / counts)).sqrt()
