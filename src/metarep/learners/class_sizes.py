"""Class sizes: how near further images are to the mean of a class, by the number of images that it is a mean of."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

LEAST, MOST = 0.05, 0.99  # of the cosine of two images of a class


def shared_cosine(
    rows: Float[Tensor, "task n dim"], labels: Int[Tensor, "task n"], ways: int
) -> Float[Tensor, " task"]:
    """Returns the mean cosine of two rows of a class, over the classes that have two; 1 if there are none.

    Args:
        rows: features, centred, so that rows of different classes have a cosine near 0.
        labels: the class of each row.
        ways: the number of classes.

    >>> rows = torch.tensor([[[2.0, 0.0], [3.0, 4.0], [0.0, 1.0]]])
    >>> shared_cosine(rows, torch.tensor([[0, 0, 1]]), 2)
    tensor([0.6000])
    """
    whole = rows.to(torch.promote_types(rows.dtype, torch.float32))  # sums of many rows overflow in float16
    unit, tasks = functional.normalize(whole, dim=-1), len(rows)
    place = (labels + ways * torch.arange(tasks, device=labels.device).unsqueeze(1)).flatten()
    sums = unit.new_zeros(tasks * ways, unit.shape[-1]).index_add(0, place, unit.flatten(0, 1))
    squares = sums.square().sum(-1).view(tasks, ways)
    sizes = place.bincount(minlength=tasks * ways).view(tasks, ways)
    several = sizes > 1
    pairs = torch.where(several, (squares - sizes) / (sizes * (sizes - 1)).clamp_min(1), 0.0).sum(-1)
    classes = several.sum(-1)
    return torch.where(classes > 0, (pairs / classes.clamp_min(1)).clamp(LEAST, MOST), 1.0).to(rows.dtype)


def even_mean(
    rows: Float[Tensor, "task n dim"], labels: Int[Tensor, "task n"], ways: int
) -> Float[Tensor, "task 1 dim"]:
    """Returns the mean of the class means: of classes of different sizes, none is nearer to it because of its size.

    >>> even_mean(torch.tensor([[[0.0], [0.0], [3.0]]]), torch.tensor([[0, 0, 1]]), 2)
    tensor([[[1.5000]]])
    """
    weights = 1 / class_counts(labels, ways).to(rows).clamp_min(1).gather(1, labels) / ways
    return weights.unsqueeze(1) @ rows


def mean_length(shared: float | Tensor, images: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Returns the length of the mean of so many unit vectors, if two of them have the cosine ``shared``.

    A further vector of the class has the cosine ``shared / length`` with that mean: the smaller, the fewer images.

    >>> mean_length(0.5, torch.tensor([1.0, 2.0, 100.0])).round(decimals=2)
    tensor([1.0000, 0.8700, 0.7100])
    """
    return (shared + (1 - shared) / images).sqrt()


def levels(shared: float | Tensor, counts: Float[Tensor, "*task ways"]) -> Float[Tensor, "*task ways"]:
    """Returns the factor on cosines with class means that makes classes of few and of many images comparable.

    Args:
        shared: the mean cosine of two images of a class; a number, or of shape ``(task, 1)``.
        counts: the number of images of each class, above 0.

    Returns:
        The factors. A class of the median size has 1.

    >>> levels(0.5, torch.tensor([1.0, 4.0, 16.0])).round(decimals=2)
    tensor([1.2600, 1.0000, 0.9200])
    """
    return mean_length(shared, counts) / mean_length(shared, counts.median(-1, keepdim=True).values)


def sizes_differ(labels: Int[Tensor, "task n"], ways: int) -> bool:
    """Whether the classes of a task have different numbers of rows, and each has some.

    >>> sizes_differ(torch.tensor([[0, 1, 1]]), 2), sizes_differ(torch.tensor([[0, 1]]), 2)
    (True, False)
    """
    counts = class_counts(labels, ways)
    return bool((counts != counts[:, :1]).any() & (counts > 0).all())


def class_counts(labels: Int[Tensor, "task n"], ways: int) -> Int[Tensor, "task ways"]:
    """Returns the number of rows of each class."""
    ones = torch.ones_like(labels)
    return labels.new_zeros(len(labels), ways).scatter_add_(1, labels, ones)


def shrunk_means(
    means: Float[Tensor, "task ways dim"], rows: Float[Tensor, "task n dim"], labels: Int[Tensor, "task n"]
) -> Float[Tensor, "task ways dim"]:
    """Returns class means, those of small classes drawn towards the mean of all classes.

    The squared distance of an image to the mean of ``k`` images contains the chance of these, ``v / k``, so that images
    of small classes look far from their own class. An empirical Bayes estimate of the means (James and Stein,
    Estimation with Quadratic Loss, 1961) draws each by what chance is of its distance. Here only the differences
    between classes are applied: the mean of the largest class stays.

    Args:
        means: the mean of the rows of each class.
        rows, labels: the support, with at least one row of each class.

    >>> rows = torch.tensor([[[0.0], [2.0], [9.0], [5.0]]])
    >>> means = torch.tensor([[[1.0], [9.0], [5.0]]])
    >>> shrunk_means(means, rows, torch.tensor([[0, 0, 1, 2]])).round(decimals=1)
    tensor([[[1.0000],
             [8.6000],
             [5.0000]]])
    """
    counts = class_counts(labels, means.shape[1]).to(rows)
    own = means.gather(1, labels.unsqueeze(-1).expand(-1, -1, means.shape[-1]))
    spread = (rows - own).square().sum((1, 2)) / (counts.sum(1) - means.shape[1]).clamp_min(1)
    chance, middle = spread.unsqueeze(1) / counts, means.mean(1, keepdim=True)
    apart = ((means - middle).square().sum(-1) - chance).mean(1, keepdim=True)
    apart = apart.clamp_min(chance.amax(1, keepdim=True) * LEAST).clamp_min(torch.finfo(rows.dtype).tiny)
    share = apart / (apart + chance)
    return middle + (share / share.amax(1, keepdim=True)).unsqueeze(-1) * (means - middle)
