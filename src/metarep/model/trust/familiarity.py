"""Familiarity scores how similar an image is to the classes of a gallery."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from metarep.model.trust.centre import Centre, centre_of, class_means
from metarep.model.trust.points import PLAIN, PointSpace

SHARPNESS = 12.0  # factor on the cosines in the soft maximum over classes
SHORT = 0.2  # centred points of photographs are 0.5 to 1.1 long
LASTING = 1.5  # what more images of a class leave of the variance of a cosine with its mean, in variances of one image


@dataclass(frozen=True)
class Familiarity:
    """Scores how similar an image is to the classes of a gallery. It does not depend on the learner.

    The points of images (:class:`metarep.model.trust.points.PointSpace`) are centred, which removes what all
    photographs share. The score of an image is the soft maximum of its cosines with the class means, divided by a
    power of the length of its centred point. Each cosine is first multiplied by the level of its class
    (:attr:`metarep.model.trust.centre.Centre.levels`), because a mean of few images is farther from further ones.

    Args:
        centre: the mean that is subtracted from the points, and the sizes of the classes.
        prototypes: the mean of the centred points of each class, shape ``(ways, dim)``. They are not of length 1.
        root: the exponent of the length; see :attr:`metarep.model.trust.points.PointSpace.root`.
    """

    centre: Centre
    prototypes: Float[Tensor, "ways dim"]
    root: float = 0.0

    def score(self, points: Float[Tensor, "n dim"]) -> Float[Tensor, " n"]:
        """Returns the score of each image, shape ``(n,)``, from its point.

        A higher score means more like one of the classes. An image that equals the mean of a class of median size
        scores about 1, if its centred point has length 1.
        """
        centred = points - self.centre.mean
        cosines = functional.normalize(centred, dim=-1) @ functional.normalize(self.prototypes, dim=-1).mT
        return _score(cosines * self.centre.levels, centred, self.root)


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

    >>> import torch
    >>> moths_and_flies = familiarity(torch.eye(2), torch.tensor([0, 1]), 2)
    >>> [round(score, 2) for score in moths_and_flies.score(torch.tensor([[1.0, 0.0], [-1.0, -1.0]])).tolist()]
    [1.0, 0.06]
    """
    centre = centre_of(points, classes, ways, space.general)
    return Familiarity(centre, class_means(points - centre.mean, classes, ways), space.root)


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
    mean by a known vector, and with it every prototype by that same vector. Levels stay, and the share of the class in
    the mean falls as its number of images does.

    Args:
        points, classes, ways, space: see :func:`familiarity`.
        units: a number for each image, shape ``(n,)``. Images with the same number are copies of each other, and are
            left out together.
        carried: whether to carry the cosines with the own class to what they would be with all of its images. They
            rise, because the mean of more images is longer. They also spread less, because the chance of ``k`` images
            has a variance of ``1 / k``; that of classes and of the image that is left out stays, and is ``LASTING``
            times that of one image. This ratio was chosen on training classes of Caltech-101. The spread is that of all
            classes on average, since one threshold is for all of them.

    Returns:
        The scores, shape ``(tested,)``, in the order of the gallery. An image is not tested if its class has no other
        unit.
    """
    centre = centre_of(points, classes, ways, space.general)
    centred, counts = points - centre.mean, centre.counts
    sums = centred.new_zeros(ways, centred.shape[1]).index_add(0, classes, centred)
    prototypes = sums / counts.unsqueeze(1)
    unit_of = (classes * (int(units.max()) + 1) + units).unique(return_inverse=True)[1]  # a unit lies within a class
    out = centred.new_zeros(int(unit_of.max()) + 1, centred.shape[1]).index_add(0, unit_of, centred)[unit_of]
    many, own_count = unit_of.bincount()[unit_of], counts[classes]
    tested, left = own_count > many, (own_count - many).clamp_min(1)
    rest = (sums[classes] - out) / left.unsqueeze(1)
    share = centre.shares[classes] / own_count  # of an image in the mean
    shift = out * (share / (1 - share * many)).unsqueeze(1)  # by this every centred row moves
    moved = centred + shift
    query = functional.normalize(moved, dim=-1)
    own = (query * functional.normalize(rest + shift, dim=-1)).sum(1)
    if carried:
        own = own * centre.length(left) / centre.length(own_count)
        spread = ((LASTING + (1 / counts).mean()) / (LASTING + 1 / left)).sqrt()
        own = own[tested].mean().lerp(own, spread)
    squares = prototypes.square().sum(1) + 2 * shift @ prototypes.mT + shift.square().sum(1, keepdim=True)
    cosines = (query @ prototypes.mT + (query * shift).sum(1, keepdim=True)) / squares.clamp_min(1e-12).sqrt()
    cosines = cosines.scatter(1, classes.unsqueeze(1), own.unsqueeze(1))
    return _score(cosines * centre.levels, moved, space.root)[tested]


def _score(cosines: Float[Tensor, "n ways"], centred: Float[Tensor, "n dim"], root: float) -> Float[Tensor, " n"]:
    """Returns the score of each image, shape ``(n,)``. The soft maximum is a smooth upper bound of the largest cosine.

    Lengths below ``SHORT`` count as that, so that an image at the very mean is not familiar.
    """
    largest = (SHARPNESS * cosines).logsumexp(1) / SHARPNESS
    return largest / centred.norm(dim=-1).clamp_min(SHORT) ** root if root else largest
