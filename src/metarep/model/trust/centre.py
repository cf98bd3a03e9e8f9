"""Centre of a gallery: the mean that its points are centred by, and how near images of a class are to each other."""

import math
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from metarep.learners.class_sizes import levels, mean_length, shared_cosine

FAMILIAR = 20.0  # the largest weight of the mean of photographs in general, in classes


@dataclass(frozen=True)
class Centre:
    """The mean of the classes of a gallery, and what follows from the number of images of each.

    The mean of few images is less certain than that of many. In the centre each class has the weight that is best for
    it, the inverse of the variance of its mean (:func:`metarep.learners.class_sizes.mean_length`). If all images
    weighed the same, those of the largest class would be near the centre, where no image is familiar.

    Args:
        mean: the vector that is subtracted from the points, shape ``(dim,)``.
        shares: the share of each class mean in it, shape ``(ways,)``.
        counts: the number of images of each class, shape ``(ways,)``.
        shared: the mean cosine of two centred points of a class, a number; 1 if no class has two.
        levels: the factor on cosines with each class mean, shape ``(ways,)``; see
            :func:`metarep.learners.class_sizes.levels`. Without it one threshold rejects the images of small classes.
    """

    mean: Float[Tensor, " dim"]
    shares: Float[Tensor, " ways"]
    counts: Float[Tensor, " ways"]
    shared: float
    levels: Float[Tensor, " ways"]

    def length(self, images: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Returns the length of the mean of so many images of a class, if each has length 1."""
        return mean_length(self.shared, images)


def centre_of(
    points: Float[Tensor, "n dim"], classes: Int[Tensor, " n"], ways: int, general: Float[Tensor, " dim"] | None = None
) -> Centre:
    """Computes the centre of a gallery.

    With few classes their mean is close to the class means themselves. So it is shrunk towards the mean of photographs
    in general, where the two are near; how far is an empirical Bayes estimate (Efron and Morris, 1973). A single class
    is centred by that mean alone, or not at all.

    Args:
        points: the points of its images, shape ``(n, dim)``.
        classes: the class index of each image, shape ``(n,)``.
        ways: the number of classes.
        general: the mean of photographs in general; None if it is unknown.

    >>> import torch
    >>> centre = centre_of(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 1, 1]), 2)
    >>> [round(share, 2) for share in centre.shares.tolist()], [round(level, 2) for level in centre.levels.tolist()]
    ([0.5, 0.5], [1.0, 1.0])
    """
    means, counts = class_means(points, classes, ways), classes.bincount(minlength=ways).to(points).clamp_min(1)
    other = means.new_zeros(means.shape[1]) if general is None else general.to(points)
    weight = math.inf if ways == 1 else 0.0 if general is None else _weight(means - other)
    even = other if ways == 1 else (means.sum(0) + weight * other) / (ways + weight)
    shared = shared_cosine((points - even).unsqueeze(0), classes.unsqueeze(0), ways).item()
    weights = mean_length(shared, counts) ** -2
    shares = weights / weights.mean() / (ways + weight)
    mean = even if ways == 1 else shares @ means + weight / (ways + weight) * other
    return Centre(mean, shares, counts, shared, levels(shared, counts))


def class_means(points: Float[Tensor, "n dim"], classes: Int[Tensor, " n"], ways: int) -> Float[Tensor, "ways dim"]:
    """Returns the mean of the points of each class."""
    sums = points.new_zeros(ways, points.shape[1]).index_add(0, classes, points)
    return sums / classes.bincount(minlength=ways).clamp_min(1).unsqueeze(1)


def _weight(apart: Float[Tensor, "ways dim"]) -> float:
    """Returns the number of classes that the mean of photographs in general counts for.

    Products of different classes give an unbiased estimate of the squared distance between the two means. The mean
    squared distance of the classes minus that estimate is the variance of the classes. The ratio of variance to squared
    distance is the weight.

    Args:
        apart: the class means, minus the mean of photographs in general.
    """
    ways, squares = len(apart), apart.square().sum(1)
    shift = (apart.sum(0).square().sum() - squares.sum()).clamp_min(0) / (ways * (ways - 1))
    return ((squares.mean() - shift) / shift.clamp_min(1e-3)).clamp(0, FAMILIAR).item()
