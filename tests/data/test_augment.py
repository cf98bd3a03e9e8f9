"""Augmentation: each image its own draw, and each transform what Pillow makes of the same numbers."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator, Tensor
from torch.nn import functional

from metarep.data.augment import PRESETS, Augment, preset
from metarep.errors import MetarepError
from metarep.weights.settings import TrainSettings

ALL = Augment(rotate=20, scale=(0.8, 1.2), shear=10, shift=0.1, crop=(0.5, 1.0), flip=0.5, cutout=0.3)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def smooth(height: int = 24, width: int = 24, channels: int = 1) -> Tensor:
    """One image without sharp edges, dark at its border, and like none of its mirror images."""
    rough = torch.rand(1, channels, 6, 6, generator=seeded(5))
    rough[..., [0, -1], :], rough[..., [0, -1]] = 0, 0
    return functional.interpolate(rough, (height, width), mode="bicubic", align_corners=False).clamp(0, 1)


def disc(row: float, column: float, side: int = 41) -> Tensor:
    """A soft spot whose centre can be read off as a mean."""
    places = torch.arange(side).float()
    return torch.exp(-((places.view(-1, 1) - row) ** 2 + (places - column) ** 2) / 8).view(1, 1, side, side)


def centre(view: Tensor) -> tuple[float, float]:
    weight = view[0, 0] / view.sum()
    places = torch.arange(view.shape[-1]).float()
    return (weight.sum(1) @ places).item(), (weight.sum(0) @ places).item()


def by_pillow(x: Tensor, matrix: Tensor) -> Tensor:
    """The view that ``matrix`` (view to image, in units of -1 to 1) names, by Pillow's own affine transform."""
    height, width = x.shape[-2:]
    to_pixels = np.array([[width / 2, 0, width / 2], [0, height / 2, height / 2], [0, 0, 1]])
    whole = np.vstack([matrix.double().numpy(), [0, 0, 1]])
    pixels = to_pixels @ whole @ np.linalg.inv(to_pixels)
    image = Image.fromarray(x[0].numpy().astype(np.float32))
    view = image.transform((width, height), Image.Transform.AFFINE, pixels[:2].flatten(), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(view))


def test_every_image_has_its_own_draw() -> None:
    """Sixteen copies of one image give sixteen views, also when only one transform is on."""
    x = smooth().repeat(16, 1, 1, 1)
    for name, setting in (
        ("rotate", 20.0), ("scale", (0.7, 1.3)), ("shear", 15.0), ("shift", 0.2), ("crop", (0.3, 0.9)), ("cutout", 0.3),
    ):  # fmt: skip
        views = replace(Augment(), **{name: setting})(x, seeded())
        assert len({view.numpy().tobytes() for view in views}) >= 15, name  # two squares may meet
    assert len({view.numpy().tobytes() for view in Augment(flip=0.5)(x, seeded())}) == 2


def test_the_generator_alone_decides() -> None:
    x = smooth().repeat(8, 1, 1, 1)
    torch.manual_seed(1)
    first = ALL(x, seeded(3))
    torch.manual_seed(2)
    assert torch.equal(ALL(x, seeded(3)), first)
    assert not torch.equal(ALL(x, seeded(4)), first)
    state = torch.get_rng_state()
    ALL(x, seeded(3))
    assert torch.equal(torch.get_rng_state(), state), "the global generator must not be touched"


@pytest.mark.parametrize("shape", [(3, 1, 20, 20), (2, 3, 84, 84), (2, 3, 28, 32)])
def test_without_settings_a_view_is_its_image(shape: tuple[int, ...]) -> None:
    x = torch.randint(256, shape, dtype=torch.uint8, generator=seeded())
    view = Augment()(x, seeded())
    assert view.dtype == torch.float32
    torch.testing.assert_close(view, x.float() / 255, rtol=0, atol=2e-5)
    torch.testing.assert_close(Augment()(x.float() / 255, seeded()), view)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "augment",
    [
        Augment(rotate=40),
        Augment(scale=(0.6, 1.6)),
        Augment(shear=25),
        Augment(shift=0.25),
        Augment(crop=(0.3, 0.9)),
        Augment(flip=0.5),
        replace(ALL, cutout=0.0),
    ],
    ids=["rotate", "scale", "shear", "shift", "crop", "flip", "all"],
)
def test_views_are_those_of_pillow(augment: Augment, seed: int) -> None:
    x = smooth()
    view, want = augment(x, seeded(seed))[0, 0], by_pillow(x[0], augment.matrices(1, seeded(seed))[0])
    inside = want > 0  # Pillow leaves what lies beyond the edge black
    assert inside.float().mean() > 0.2
    assert (view - want)[inside].abs().max() < 0.02


@pytest.mark.parametrize("degrees", [10.0, 45.0, 90.0])
@pytest.mark.parametrize(("height", "width"), [(41, 41), (31, 51)])
def test_rotation_turns_and_keeps_lengths(degrees: float, height: int, width: int) -> None:
    """A right angle and a length stay what they are, for images that are not square too."""
    augment, found = Augment(rotate=degrees), []
    matrix = augment.matrices(64, seeded())
    turn = torch.rand(10, 64, generator=seeded())[0] * 2 * degrees - degrees
    middle = ((height - 1) / 2, (width - 1) / 2)
    spots = [(middle[0], middle[1] + 8), (middle[0] - 8, middle[1])]  # 8 px to the right of the middle, and above it
    rows, columns = torch.arange(height).float().view(-1, 1), torch.arange(width).float()
    for row, column in spots:
        spot = torch.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 6).view(1, 1, height, width)
        view = augment(spot.repeat(64, 1, 1, 1), seeded())[:, 0]
        view = view / view.sum((1, 2), keepdim=True)
        down = (view.sum(2) * rows.view(1, -1)).sum(1) - middle[0]
        right = (view.sum(1) * columns.view(1, -1)).sum(1) - middle[1]
        found.append(torch.stack([right, -down], dim=-1))
    assert matrix.shape == (64, 2, 3)
    for vector in found:
        assert (vector.norm(dim=-1) - 8).abs().max() < 0.15
    assert (found[0] * found[1]).sum(-1).abs().max() < 1.5
    angle = torch.atan2(found[0][:, 1], found[0][:, 0]) * 180 / math.pi
    assert (angle.abs() - turn.abs()).abs().max() < 1.5
    assert angle.min() < 0 < angle.max(), "both directions occur"
    assert len(set((angle * turn).sign().tolist())) == 1, "and one sign means one direction"


@pytest.mark.parametrize(("side", "factor"), [(41, 0.6), (41, 1.3), (40, 1.3)])
def test_scaling_grows_the_content_about_the_centre(side: int, factor: float) -> None:
    middle = (side - 1) / 2
    for row, column in ((middle - 8, middle + 4), (middle, middle), (middle + 5, middle + 9)):
        down, right = centre(Augment(scale=(factor, factor))(disc(row, column, side), seeded()))
        assert down - middle == pytest.approx((row - middle) * factor, abs=0.1)
        assert right - middle == pytest.approx((column - middle) * factor, abs=0.1)


def test_shifts_move_the_content_by_at_most_their_share_of_the_side() -> None:
    x = disc(20, 20)
    moves = torch.tensor([centre(Augment(shift=0.25)(x, seeded(seed))) for seed in range(60)]) - 20
    assert moves.abs().max() <= 0.25 * 41 + 0.2
    assert moves.max() > 0.2 * 41
    assert moves.min() < -0.2 * 41
    assert np.corrcoef(moves.T.numpy())[0, 1] < 0.4, "the axes are drawn apart"
    one = torch.zeros(1, 1, 8, 8)
    one[0, 0, 3, 4] = 1
    augment = Augment(shift=0.25)
    whole = augment.matrices(1, seeded(1))[0, :, 2]
    view = augment(one, seeded(1))
    down, right = centre(view)
    assert (down, right) == pytest.approx((3 - whole[1].item() * 4, 4 - whole[0].item() * 4), abs=1e-4)


def test_a_flip_mirrors_left_and_right_about_as_often_as_set() -> None:
    x = smooth().repeat(400, 1, 1, 1)
    for share in (0.1, 0.5):
        views = Augment(flip=share)(x, seeded())
        mirrored = (views - x.flip(-1)).abs().amax((1, 2, 3)) < 1e-4
        kept = (views - x).abs().amax((1, 2, 3)) < 1e-4
        assert (mirrored ^ kept).all()
        assert abs(mirrored.float().mean().item() - share) < 4 * math.sqrt(share * (1 - share) / 400)
    assert torch.allclose(Augment(flip=1.0)(x[:3], seeded()), x[:3].flip(-1), atol=1e-4)


@pytest.mark.parametrize("area", [(0.2, 0.6), (0.4, 1.0), (1.0, 1.0)])
def test_crops_lie_inside_and_have_the_area_and_shape_that_are_set(area: tuple[float, float]) -> None:
    augment = Augment(crop=area, ratio=(0.5, 2.0))
    matrix = augment.matrices(3_000, seeded())
    sides, offset = torch.diagonal(matrix[:, :, :2], dim1=1, dim2=2), matrix[:, :, 2]
    assert (matrix[:, 0, 1] == 0).all()
    assert (offset.abs() + sides <= 1 + 1e-6).all(), "the window lies inside the image"
    covered = sides.prod(-1)
    assert covered.max() <= area[1] + 1e-5
    whole = (sides < 1 - 1e-6).all(-1)  # a window as wide as the image was cut down to it
    if whole.any():
        assert covered[whole].min() >= area[0] - 1e-5
        ratio = (sides[:, 0] / sides[:, 1])[whole]
        assert ratio.min() >= 0.5 - 1e-4
        assert ratio.max() <= 2 + 1e-4
        free = 1 - sides[whole]
        place = (offset[whole] / free + 1) / 2
        assert abs(place.mean() - 0.5) < 0.03
        assert place.min() < 0.05
        assert place.max() > 0.95
        assert np.corrcoef(place.T.numpy())[0, 1] < 0.1


def test_a_crop_shows_its_window() -> None:
    x = smooth(40, 40)
    augment = Augment(crop=(0.25, 0.25), ratio=(1.0, 1.0))
    offset = augment.matrices(1, seeded(2))[0, :, 2]
    left, top = ((offset - 0.5 + 1) * 20).tolist()
    window = Image.fromarray(x[0, 0].numpy()).resize(
        (40, 40), Image.Resampling.BILINEAR, box=(left, top, left + 20, top + 20)
    )
    view = augment(x, seeded(2))[0, 0]
    assert (view - torch.from_numpy(np.array(window))).abs()[2:-2, 2:-2].max() < 0.02


@pytest.mark.parametrize(
    ("augment", "read"),
    [
        (Augment(rotate=30), lambda m: torch.rad2deg(torch.atan2(m[:, 1, 0], m[:, 0, 0]))),
        (Augment(scale=(0.8, 1.4)), lambda m: 1 / m[:, 0, 0]),
        (Augment(shear=20), lambda m: torch.rad2deg(torch.atan(m[:, 0, 1]))),
        (Augment(shear=20), lambda m: torch.rad2deg(torch.atan(m[:, 1, 0]))),
        (Augment(shift=0.2), lambda m: m[:, 0, 2] / 2),
        (Augment(shift=0.2), lambda m: m[:, 1, 2] / 2),
    ],
    ids=["rotate", "scale", "shear x", "shear y", "shift x", "shift y"],
)
def test_parameters_fill_their_span_evenly(augment: Augment, read: Any) -> None:
    spans = {"rotate": 30.0, "shear": 20.0, "shift": 0.2}
    name = next((name for name in spans if getattr(augment, name)), "scale")
    low, high = (0.8, 1.4) if name == "scale" else (-spans[name], spans[name])
    share = (read(augment.matrices(4_000, seeded())) - low) / (high - low)
    assert -1e-4 < share.min() < 0.01
    assert 0.99 < share.max() < 1 + 1e-4
    counts = torch.histc(share, 10, 0, 1)
    assert (counts - 400).abs().max() < 4 * math.sqrt(400)


def test_parameters_are_drawn_apart() -> None:
    matrix = replace(ALL, flip=0.0, crop=None).matrices(3_000, seeded()).flatten(1)
    correlation = np.corrcoef(matrix[:, [0, 2, 5]].T.numpy())  # size, shift x, shift y
    assert np.abs(correlation - np.eye(3)).max() < 0.08


def test_cut_out_is_a_square_of_the_mean() -> None:
    x = smooth(32, 32, 3).repeat(300, 1, 1, 1)
    views = Augment(cutout=0.5)(x, seeded())
    mean = x.mean((2, 3), keepdim=True)
    hole = ((views - mean).abs() < 1e-6).all(1) & ((x - views).abs().amax(1) > 1e-4)
    near = ((views - mean).abs() < 1e-6).all(1)
    area = near.float().mean((1, 2))
    # A side of h centred anywhere leaves (h - h**2 / 4) of it inside on average, in each direction.
    assert area.mean().item() == pytest.approx((0.5 - 0.25 / 4) ** 2, rel=0.08)
    assert area.max() <= 0.25 + 0.01
    assert hole.any((1, 2)).all()
    for rows, columns in ((n.any(1), n.any(0)) for n in near[:20]):
        for line in (rows, columns):
            places = line.nonzero().squeeze(1).tolist()
            assert all(b - a == 1 for a, b in pairwise(places)), "one square, without gaps"
    outside = ~near.unsqueeze(1).expand_as(x)
    assert torch.allclose(views[outside], x[outside], atol=1e-4)


def test_presets_by_name() -> None:
    assert preset("none") is None
    assert {name for name, value in PRESETS.items() if value is not None} == {
        "drawings", "photos", "photos-32", "views-drawings", "crops-drawings", "views-32", "few-shot-84"
    }  # fmt: skip
    assert not [name for name in PRESETS if f" {name}" not in str(TrainSettings.__doc__)], "the help names all"
    assert PRESETS["drawings"] is not None
    assert PRESETS["drawings"].flip == 0, "a mirrored letter is another letter"
    with pytest.raises(MetarepError, match="unknown augmentation 'drawing'; did you mean 'drawings'"):
        preset("drawing")
