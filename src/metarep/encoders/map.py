"""Maps of features in two dimensions: principal components and t-SNE."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from metarep.encoders.feature_means import spaced

LANDMARKS = 800  # rows that t-SNE arranges; each other row is put between its nearest landmarks
NEAR = 5  # a map is judged by how many of these nearest rows stay nearest
STEPS = 400
PERPLEXITY = 10.0  # neighbours of a row in t-SNE; a class of a few images has no more


def flatten(rows: Float[Tensor, "n dim"]) -> tuple[Float[Tensor, "n 2"], float]:
    """The two principal components of rows of features, scaled into the unit square.

    The sign of a component is arbitrary. Here its largest weight is positive, so that the same rows give the same map.

    Returns:
        The points, and the share of the variance that the two components hold, 0 to 1.

    >>> points, share = flatten(torch.tensor([[0.0, 0.0, 5.0], [1.0, 0.0, 5.0], [2.0, 1.0, 5.0]]))
    >>> points.min().item(), points.max().item(), round(share, 3)
    (0.0, 1.0, 1.0)
    """
    centred = rows.double() - rows.double().mean(0)
    _, values, directions = torch.linalg.svd(centred, full_matrices=False)
    top = directions[:2]
    top = top * top.gather(1, top.abs().argmax(1, keepdim=True)).sign()
    flat = centred @ top.T
    flat = functional.pad(flat, (0, 2 - flat.shape[1]))
    share = values[:2].square().sum() / values.square().sum().clamp_min(1e-12)
    return _into_the_square(flat), share.item()


def neighbour_map(rows: Float[Tensor, "n dim"]) -> tuple[Float[Tensor, "n 2"], float]:
    """A t-SNE map of rows of features in the unit square, where rows that are near each other stay near.

    van der Maaten, Hinton, Visualizing Data using t-SNE, 2008. Two principal components hold little of what separates a
    hundred classes. t-SNE gives up large distances and keeps small ones. It starts here from the principal components
    and draws no random numbers, so the same rows give the same map. Of more than 800 rows, 800 are arranged, and each
    other row is put at the mean of its three nearest ones among them.

    Returns:
        The points; and the share of each row's five nearest rows that are also its five nearest points, from 0 to 1.
        With fewer than four rows it is 0.

    >>> rows = torch.eye(6).repeat_interleave(5, 0) + torch.linspace(0, 0.1, 30).view(30, 1)
    >>> points, kept = neighbour_map(rows)
    >>> points.shape, kept > 0.6
    (torch.Size([30, 2]), True)
    """
    rows = rows.float()
    chosen = spaced(len(rows), LANDMARKS)
    landmarks = rows[chosen]
    start = flatten(landmarks)[0] - 0.5 if len(rows) else torch.zeros(0, 2)
    if len(rows) < 4 or not start.any() or torch.cdist(landmarks, landmarks[:1]).max() < 1e-6:
        return start + 0.5, 0.0
    points = _into_the_square(_arranged(landmarks, start)).float()
    if len(chosen) < len(rows):
        near = torch.cat([torch.cdist(part, landmarks).topk(3, largest=False).indices for part in rows.split(1024)])
        own, points = points, points[near].mean(1)
        points[chosen] = own
    return points, _kept(landmarks, points[chosen])


def _arranged(rows: Float[Tensor, "n dim"], start: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
    """The points of t-SNE, in any unit."""
    from sklearn.manifold import TSNE

    tsne: Any = TSNE(
        2,
        perplexity=min(PERPLEXITY, (len(rows) - 1) / 3),
        init=(start / start.std(0).max() * 1e-4).numpy(),  # pyright: ignore[reportArgumentType] - its stub knows names only
        max_iter=STEPS,
        random_state=0,
        n_jobs=1,
    )
    return torch.from_numpy(tsne.fit_transform(rows.numpy()))


def _kept(rows: Float[Tensor, "n dim"], points: Float[Tensor, "n 2"]) -> float:
    """The share of the nearest rows that are also nearest on the map, 0 to 1."""
    near = min(NEAR, len(rows) - 1)
    same = []
    for each in (rows, points):
        apart = torch.cdist(each, each).fill_diagonal_(torch.inf)
        same.append(torch.zeros_like(apart).scatter(1, apart.topk(near, largest=False).indices, 1.0))
    return ((same[0] * same[1]).sum() / (near * len(rows))).item()


def _into_the_square(flat: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
    """Points scaled equally in both directions to fill the unit square, and centred in it."""
    low, spread = flat.amin(0), (flat.amax(0) - flat.amin(0)).max().clamp_min(1e-12)
    middle = (1 - (flat.amax(0) - low) / spread) / 2
    return ((flat - low) / spread + middle).float()
