"""Plane: many numbers a row seen as two, for maps."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

LANDMARKS = 800  # rows that are arranged; others are put between those that they are near
NEAR = 5  # rows: of these neighbours a map should keep as many as it can
STEPS = 400
PERPLEXITY = 10.0  # neighbours that a row is held to; a class of a few images has no more


def flatten(rows: Float[Tensor, "n dim"]) -> tuple[Float[Tensor, "n 2"], float]:
    """The two principal components of ``rows``, fitted into the unit square, and their share of the variance.

    The sign of a component is arbitrary; here its largest weight is positive, so that one run draws one map.

    >>> places, share = flatten(torch.tensor([[0.0, 0.0, 5.0], [1.0, 0.0, 5.0], [2.0, 1.0, 5.0]]))
    >>> places.min().item(), places.max().item(), round(share, 3)
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
    """Places in the unit square where near rows are near (t-SNE; van der Maaten and Hinton, JMLR 2008), and how well.

    Two directions of largest spread hold little of what tells a hundred classes apart. This map gives up large
    distances and keeps small ones. It starts from the principal components and draws nothing at random, so that the
    same rows make the same map. Of more than 800 rows, 800 are arranged, and each other one is put at the mean of the
    three of them that are nearest to it.

    Returns:
        The places, and the share of each row's five nearest rows that are among the five nearest on the map: 1 is all,
        and 0 where there are fewer than four rows.

    >>> rows = torch.eye(6).repeat_interleave(5, 0) + torch.linspace(0, 0.1, 30).view(30, 1)
    >>> places, kept = neighbour_map(rows)
    >>> places.shape, kept > 0.6
    (torch.Size([30, 2]), True)
    """
    rows = rows.float()
    some = torch.linspace(0, len(rows) - 1, min(len(rows), LANDMARKS)).round().long()
    marks = rows[some]
    start = flatten(marks)[0] - 0.5 if len(rows) else torch.zeros(0, 2)
    if len(rows) < 4 or not start.any() or torch.cdist(marks, marks[:1]).max() < 1e-6:
        return start + 0.5, 0.0
    places = _into_the_square(_arranged(marks, start)).float()
    if len(some) < len(rows):
        near = torch.cat([torch.cdist(part, marks).topk(3, largest=False).indices for part in rows.split(1024)])
        own, places = places, places[near].mean(1)
        places[some] = own
    return places, _kept(marks, places[some])


def _arranged(rows: Float[Tensor, "n dim"], start: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
    from sklearn.manifold import TSNE

    tsne = TSNE(
        2,
        perplexity=min(PERPLEXITY, (len(rows) - 1) / 3),
        init=(start / start.std(0).max() * 1e-4).numpy(),  # pyright: ignore[reportArgumentType] - its stub knows names only
        max_iter=STEPS,
        random_state=0,
        n_jobs=1,
    )
    return torch.from_numpy(tsne.fit_transform(rows.numpy()))


def _kept(rows: Float[Tensor, "n dim"], places: Float[Tensor, "n 2"]) -> float:
    near = min(NEAR, len(rows) - 1)
    same = []
    for each in (rows, places):
        apart = torch.cdist(each, each).fill_diagonal_(torch.inf)
        same.append(torch.zeros_like(apart).scatter(1, apart.topk(near, largest=False).indices, 1.0))
    return ((same[0] * same[1]).sum() / (near * len(rows))).item()


def _into_the_square(flat: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
    low, spread = flat.amin(0), (flat.amax(0) - flat.amin(0)).max().clamp_min(1e-12)
    middle = (1 - (flat.amax(0) - low) / spread) / 2
    return ((flat - low) / spread + middle).float()
