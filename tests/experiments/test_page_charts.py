"""The charts and the map of quickstart's page: what is drawn lies where the numbers are."""

import re

import numpy as np
import torch

from metarep.experiments.page.charts import Point, Series, push_apart, shots_chart
from metarep.experiments.page.maps import flatten


def test_flatten_is_the_plane_of_largest_spread():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(200, 5, generator=generator) * torch.tensor([9.0, 3.0, 0.1, 0.1, 0.1])
    turn = torch.linalg.qr(torch.randn(5, 5, generator=generator)).Q
    places, share = flatten(rows @ turn + 4)
    assert share > 0.99
    assert places.min() >= 0
    assert places.max() <= 1
    assert abs(torch.corrcoef(torch.stack([places[:, 0], rows[:, 0]]))[0, 1]) > 0.999
    assert abs(torch.corrcoef(torch.stack([places[:, 1], rows[:, 1]]))[0, 1]) > 0.99
    assert torch.isfinite(flatten(torch.ones(4, 3))[0]).all()


def test_charts_place_points_where_they_belong():
    svg = shots_chart([Series("a", "s0", [Point(1, 50.0, 1.0), Point(10, 99.0, 0.5)])])
    (x1, y1), (x2, y2) = [tuple(map(float, pair.split(","))) for pair in re.search('points="([^"]*)"', svg)[1].split()]
    assert x1 < x2
    assert y1 > y2
    grid = {float(y) for y in re.findall('y1="([^"]*)"', svg)}
    assert y1 in grid  # 50 % lies on a line of the grid
    assert min(grid) < y1
    assert f">{50}</text>" in svg
    generator = np.random.default_rng(0)
    apart = push_apart([tuple(place) for place in generator.uniform(80, 120, (9, 2))], 20.0, 400.0)
    for i, one in enumerate(apart):
        for other in apart[:i]:
            assert max(abs(one[0] - other[0]), abs(one[1] - other[1])) > 20 - 1e-3
