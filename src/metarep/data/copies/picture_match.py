"""Compare pictures by their hashes: as they are, mirrored or cropped a little, as a whole and tile by tile."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from metarep.data.copies.picture_hash import BRIGHT, COLOUR, Hashes, brightness, centres, colour, frequencies, waves

COMPARED = 12  # waves down and across: fewer than a hash has, because cropping lowers the frequency of what is left
TINTS = 4  # waves of colour that are compared, down and across
CUTS, STEP = 5, 0.0125  # crops that are tried: up to this many steps, each this share of the side, at any offset
GRID, TILES = 24, 4  # points at which a picture is compared, and the tiles they form, down and across
QUIET = 0.03  # share of the mean energy of a tile; a tile with less counts as noise
BATCH = 512  # pairs that are compared at once

Match = tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]


def match(one: Hashes, other: Hashes) -> Match:
    """Compare the pictures of each pair: the second as it is or mirrored, and either of them cropped by up to 6 %.

    Args:
        one, other: hashes of the two pictures of each pair.

    Returns:
        For the best crop of each pair: the correlation of the whole pictures, that of the second-worst of 16 tiles,
        and the distance of their colours in levels. Correlations are from -1 to 1.
    """
    matches = [_match(*some) for some in zip(one.split(BATCH), other.split(BATCH), strict=True)]
    if not matches:
        return torch.zeros(0), torch.zeros(0), torch.zeros(0)
    whole, tiles, tint = (torch.cat(parts) for parts in zip(*matches, strict=True))
    return whole, tiles, tint


def outline(hashes: Hashes, *, mirrored: bool = False) -> Float[Tensor, "n 144"]:
    """The compared brightness waves of each picture as a unit vector.

    The product of two such vectors is the correlation of the whole pictures, neither of them cropped.
    """
    coefficients = mirror(brightness(hashes)) if mirrored else brightness(hashes)
    return functional.normalize(coefficients[:, :COMPARED, :COMPARED].flatten(1), dim=1)


def mirror(coefficients: Float[Tensor, "*n kept kept"]) -> Float[Tensor, "*n kept kept"]:
    """The cosine coefficients of the picture mirrored left to right: every second one changes its sign."""
    return coefficients * (1 - 2 * (torch.arange(coefficients.shape[-1]) % 2))


def _match(one: Hashes, other: Hashes) -> Match:
    """The best match of each pair over all crops and mirrorings; see :func:`match`."""
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
            crops = torch.einsum("iab,nbc->niac", bright, cut)
            crops = functional.normalize((torch.einsum("niac,jdc->nijad", crops, bright) * weight).flatten(3), dim=3)
            best, crop = torch.einsum("nijk,nk->nij", crops, target).flatten(1).max(1)
            down, across = crop // (steps + 1), crop % (steps + 1)
            tone = tints[down].unsqueeze(1) @ tone_cut @ tints[across].mT.unsqueeze(1)
            distance = (tone - tone_kept[..., :TINTS, :TINTS]).square().sum((1, 2, 3)).sqrt()
            better = best > whole
            whole, tint = torch.where(better, best, whole), torch.where(better, distance, tint)
            left[better] = target[better]
            right[better] = crops.flatten(1, 2)[torch.arange(len(a)), crop][better]
    return whole, _by_tile(left, right), tint


def _cuts(steps: int, kept: int, compared: int) -> Float[Tensor, "offsets compared kept"]:
    """Maps from the cosine coefficients of a line to those of each part of it that is some steps shorter.

    Args:
        steps: how much shorter the part is; it begins at one of ``steps + 1`` offsets.
        kept: coefficients of the line.
        compared: coefficients of the part.
    """
    points, length = centres(64), 1 - steps * STEP
    parts = [
        waves(points, compared).T @ waves(offset * STEP + length * points, kept) / 64 for offset in range(steps + 1)
    ]
    return torch.stack(parts)


def _by_tile(left: Float[Tensor, "n 144"], right: Float[Tensor, "n 144"]) -> Float[Tensor, " n"]:
    """The second-lowest correlation among the tiles of two pictures. Two nearly uniform tiles have correlation 1."""
    points = waves(centres(GRID), COMPARED)
    side = GRID // TILES

    def tiles_of(coefficients: Tensor) -> Float[Tensor, "n tiles points"]:
        """The picture at the points of the grid, cut into tiles, each with a mean of 0."""
        drawn = points @ coefficients.unflatten(1, (COMPARED, COMPARED)) @ points.T
        tiles = drawn.unflatten(2, (TILES, side)).unflatten(1, (TILES, side)).transpose(2, 3).flatten(3).flatten(1, 2)
        return tiles - tiles.mean(-1, keepdim=True)

    a, b, quiet = tiles_of(left), tiles_of(right), QUIET * side * side
    like = (a * b).sum(-1) + quiet
    like = like / ((a.square().sum(-1) + quiet) * (b.square().sum(-1) + quiet)).sqrt()
    return like.sort(1).values[:, 1]
