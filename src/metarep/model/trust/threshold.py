"""Threshold of familiarity: below it an image belongs to none of the classes of a gallery."""

import math

import torch
from jaxtyping import Float, Int
from scipy.special import betainc, ndtri, stdtrit
from torch import Tensor

from metarep.model.trust.familiarity import held_out_familiarity
from metarep.model.trust.points import PLAIN, PointSpace

FEW = 10  # with fewer images, their lowest score is not a reliable quantile
EARLY = 2.5  # how fast the estimate of a quantile becomes that of Harrell and Davis, in ranks of the wanted score


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
