"""Sampling: one slow formula is the oracle of what is sampled by default and of torch's way."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from metarep.data.augment import Augment
from metarep.data.augment.sampling import sample, sample_by_torch
from metarep.machine import faster

Path = Callable[[Tensor, Tensor], Tensor]
WILD = Augment(rotate=180, scale=(0.2, 4.0), shear=40, shift=0.6, crop=(0.1, 1.0), ratio=(0.3, 3.0), flip=0.5)


@pytest.fixture(params=[sample, sample_by_torch], ids=["default", "torch"])
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


def some(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = Generator().manual_seed(0)
    x = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    return x, WILD.matrices(len(x), generator, shape[3] / shape[2])


def look_up(x: Tensor, matrix: Tensor, row: int, column: int) -> list[float]:
    """One pixel of one view in exact arithmetic's nearest: every channel, by the formula."""
    height, width = x.shape[1:]
    place = matrix.double() @ torch.tensor([(2 * column + 1) / width - 1, (2 * row + 1) / height - 1, 1]).double()
    across = min(max(((place[0].item() + 1) * width - 1) / 2, 0), width - 1)
    down = min(max(((place[1].item() + 1) * height - 1) / 2, 0), height - 1)
    left, top = math.floor(across), math.floor(down)
    total = torch.zeros(len(x), dtype=torch.float64)
    for r, vertical in ((top, 1 - down + top), (top + 1, down - top)):
        for c, horizontal in ((left, 1 - across + left), (left + 1, across - left)):
            total += vertical * horizontal * x[:, min(r, height - 1), min(c, width - 1)].double()
    return (total / 255).tolist()


@pytest.mark.parametrize(
    "shape",
    [(40, 1, 28, 28), (5, 3, 32, 32), (3, 3, 84, 84), (6, 1, 2, 2), (4, 2, 3, 50), (4, 1, 61, 17), (1, 3, 5, 1024)],
)
def test_a_view_is_the_formula(path: Path, shape: tuple[int, ...]) -> None:
    x, matrix = some(shape)
    views = path(x, matrix)
    assert views.dtype == torch.float32
    assert views.min() >= 0
    assert views.max() <= 1
    for i, row, column in torch.rand(60, 3, generator=Generator().manual_seed(1)).tolist():
        place = (int(i * shape[0]), int(row * shape[2]), int(column * shape[3]))
        want = look_up(x[place[0]], matrix[place[0]], *place[1:])
        slope = 2e-6 * max(shape[2:])  # places are rounded, and neighbours differ by up to 1
        assert views[place[0], :, place[1], place[2]].tolist() == pytest.approx(want, abs=slope), place


def test_memory_layout_changes_nothing(path: Path) -> None:
    x, matrix = some((37, 3, 20, 20))
    whole = path(x, matrix)
    assert torch.equal(path(x.to(memory_format=torch.channels_last), matrix), whole)
    assert torch.equal(path(x.repeat_interleave(2, 0)[::2], matrix.mT.contiguous().mT), whole)
    assert path(x[:0], matrix[:0]).shape == (0, 3, 20, 20)


def test_maps_that_lead_nowhere_stay_inside(path: Path) -> None:
    """Whatever a map says, no byte is read from outside its image."""
    x = torch.full((4, 1, 9, 9), 51, dtype=torch.uint8)
    matrix = torch.zeros(4, 2, 3)
    matrix[0], matrix[1], matrix[2, :, 2], matrix[3, 0, 0] = 1e30, -1e30, 1e9, float("inf")
    assert torch.allclose(path(x, matrix), torch.tensor(0.2))


def test_floats_keep_their_range(monkeypatch: pytest.MonkeyPatch) -> None:
    x, matrix = some((3, 1, 12, 12))
    torch.testing.assert_close(sample(x * 7.0, matrix), sample(x, matrix) * 255 * 7, rtol=1e-5, atol=1e-2)
    assert sample(x.double(), matrix).dtype == torch.float64
    before = sample(x, matrix)
    monkeypatch.setattr(faster, "PRESENT", False)
    torch.testing.assert_close(sample(x, matrix), before, rtol=0, atol=1e-5)
