"""Planes: the map of neighbours separates what the features separate, is the same each time, and is soon there."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from metarep.encoders.map import LANDMARKS, flatten, neighbour_map


def groups(classes: int, images: int, dim: int = 64) -> tuple[Tensor, Tensor]:
    """Features of many classes: each image is near its class, whose place is its own."""
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat_interleave(images)
    rows = torch.randn(classes, dim, generator=g)[labels] + 0.4 * torch.randn(classes * images, dim, generator=g)
    return functional.normalize(rows, dim=-1), labels


def together(places: Tensor, labels: Tensor) -> float:
    """How often the nearest on the map is of the same class."""
    apart = torch.cdist(places, places).fill_diagonal_(torch.inf)
    return (labels[apart.argmin(1)] == labels).float().mean().item()


@pytest.mark.slow
def test_a_map_of_a_hundred_classes_separates_them() -> None:
    rows, labels = groups(100, 3)
    places, kept = neighbour_map(rows)
    assert together(places, labels) > 0.95
    assert together(flatten(rows)[0], labels) < 0.3, "two directions of largest spread cannot"
    assert kept > 0.35, "two of five are of the class"
    assert places.min() >= 0
    assert places.max() <= 1
    again, _ = neighbour_map(rows)
    assert torch.equal(places, again)


@pytest.mark.slow
def test_more_images_than_landmarks() -> None:
    rows, labels = groups(20, LANDMARKS // 20 + 5)
    places, kept = neighbour_map(rows)
    assert len(places) == len(rows) > LANDMARKS
    assert together(places, labels) > 0.95
    assert kept > 0.2


def test_too_few_rows_or_equal_rows() -> None:
    for rows in (torch.zeros(0, 4), torch.rand(1, 4), torch.rand(3, 4), torch.ones(9, 4), torch.ones(9, 4).cumsum(0)):
        places, kept = neighbour_map(rows)
        assert places.shape == (len(rows), 2)
        assert 0 <= kept <= 1
        assert ((places >= 0) & (places <= 1)).all()
