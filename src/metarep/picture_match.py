"""Whether two pictures are one, looked at by their hashes: mirrored, cut a little, and place by place."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from metarep.picture_hash import BRIGHT, COLOUR, Hashes, brightness, centres, colour, frequencies, waves

COMPARED = 12  # waves down and across: fewer than a hash has, since a picture that is cut shows some as slower ones
TINTS = 4
CUTS, STEP = 5, 0.0125  # pictures are cut by so many steps at most, down and across, wherever the rest lies
GRID, TILES = 24, 4  # points, and tiles of them, down and across
QUIET = 0.03  # of the mean energy of a tile: less than this is noise
BATCH = 512

Match = tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]


def match(one: Hashes, other: Hashes) -> Match:
    """How alike the pictures of each pair are, the second as it is, mirrored, or either cut by up to 6 %.

    Args:
        one, other: hashes of the pictures of each pair.

    Returns:
        The correlation of the whole; of the worst but one of 16 tiles; and the distance of their colours in levels.
    """
    found = [_match(*some) for some in zip(one.split(BATCH), other.split(BATCH), strict=True)]
    if not found:
        return torch.zeros(0), torch.zeros(0), torch.zeros(0)
    whole, tiles, tint = (torch.cat(parts) for parts in zip(*found, strict=True))
    return whole, tiles, tint


def outline(hashes: Hashes, *, mirrored: bool = False) -> Float[Tensor, "n 144"]:
    """The compared waves as one unit vector: its products are correlations of whole pictures, not cut."""
    found = mirror(brightness(hashes)) if mirrored else brightness(hashes)
    return functional.normalize(found[:, :COMPARED, :COMPARED].flatten(1), dim=1)


def mirror(found: Float[Tensor, "*n kept kept"]) -> Float[Tensor, "*n kept kept"]:
    """The waves of the picture seen in a mirror: left is right."""
    return found * (1 - 2 * (torch.arange(found.shape[-1]) % 2))


def _match(one: Hashes, other: Hashes) -> Match:
    weight = frequencies(COMPARED)
    plain = frequencies(BRIGHT).clamp_min(1)
    a, b, tone_a, tone_b = brightness(one) / plain, brightness(other) / plain, colour(one), colour(other)
    whole, left, right = torch.full((len(a),), -2.0), torch.zeros(len(a), 144), torch.zeros(len(a), 144)
    tint = torch.zeros(len(a))
    ways = ((a, b, tone_a, tone_b), (a, mirror(b), tone_a, mirror(tone_b)))
    ways += ((b, a, tone_b, tone_a), (mirror(b), a, mirror(tone_b), tone_a))
    for kept, cut, tone_kept, tone_cut in ways:
        target = functional.normalize((kept[:, :COMPARED, :COMPARED] * weight).flatten(1), dim=1)
        for steps in range(CUTS + 1):
            bright, tints = _cuts(steps, BRIGHT, COMPARED), _cuts(steps, COLOUR, TINTS)
            seen = torch.einsum("iab,nbc->niac", bright, cut)
            seen = functional.normalize((torch.einsum("niac,jdc->nijad", seen, bright) * weight).flatten(3), dim=3)
            best, at = torch.einsum("nijk,nk->nij", seen, target).flatten(1).max(1)
            down, across = at // (steps + 1), at % (steps + 1)
            tone = tints[down].unsqueeze(1) @ tone_cut @ tints[across].mT.unsqueeze(1)
            far = (tone - tone_kept[..., :TINTS, :TINTS]).square().sum((1, 2, 3)).sqrt()
            better = best > whole
            whole, tint = torch.where(better, best, whole), torch.where(better, far, tint)
            left[better] = target[better]
            right[better] = seen.flatten(1, 2)[torch.arange(len(a)), at][better]
    return whole, _by_tile(left, right), tint


def _cuts(steps: int, kept: int, seen: int) -> Float[Tensor, "places seen kept"]:
    """From the waves of a line to those of each part of it that is shorter by some steps."""
    points, length = centres(64), 1 - steps * STEP
    parts = [waves(points, seen).T @ waves(at * STEP + length * points, kept) / 64 for at in range(steps + 1)]
    return torch.stack(parts)


def _by_tile(left: Float[Tensor, "n 144"], right: Float[Tensor, "n 144"]) -> Float[Tensor, " n"]:
    """The correlation within the worst tile but one; tiles that show next to nothing agree."""
    points = waves(centres(GRID), COMPARED)
    side = GRID // TILES

    def cut(found: Tensor) -> Float[Tensor, "n tiles points"]:
        drawn = points @ found.unflatten(1, (COMPARED, COMPARED)) @ points.T
        tiles = drawn.unflatten(2, (TILES, side)).unflatten(1, (TILES, side)).transpose(2, 3).flatten(3).flatten(1, 2)
        return tiles - tiles.mean(-1, keepdim=True)

    a, b, quiet = cut(left), cut(right), QUIET * side * side
    like = (a * b).sum(-1) + quiet
    like = like / ((a.square().sum(-1) + quiet) * (b.square().sum(-1) + quiet)).sqrt()
    return like.sort(1).values[:, 1]
