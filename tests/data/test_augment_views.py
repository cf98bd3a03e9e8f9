"""Views as a whole: blur and solarisation, equal on every path, drawn as asked, settings refused."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ImageFilter, ImageOps
from views import photos, pillow, seeded, still, tensor

from metarep.data.augment import PRESETS, Augment
from metarep.data.augment.blur import gaussian
from metarep.errors import DataError, MetarepError

EVERYTHING = Augment(
    rotate=20, crop=(0.3, 1.0), flip=0.5, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, jitter=0.8, grey=0.3,
    blur=0.5, solarise=0.3, cutout=0.3,
)  # fmt: skip


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("shape", [(3, 12, 17), (1, 5, 5)])
def test_blur_is_a_sum_over_a_window(sigma: float, shape: tuple[int, ...]) -> None:
    x = torch.rand(1, *shape, generator=seeded())
    view = Augment().apply(x, still(sigma=torch.tensor([sigma])))
    weights = np.exp(-0.5 * (np.arange(-4, 5) / sigma) ** 2)
    window = np.outer(weights, weights) / weights.sum() ** 2
    padded = np.pad(x[0].numpy(), [(0, 0), (4, 4), (4, 4)], mode="reflect")
    for row, column in ((0, 0), (2, 3), (shape[1] - 1, shape[2] - 2)):
        want = (padded[:, row : row + 9, column : column + 9] * window).sum((1, 2))
        assert view[0, :, row, column].tolist() == pytest.approx(want.tolist(), abs=1e-5)


def test_blur_is_about_that_of_pillow() -> None:
    x = photos(side=40)
    view = Augment(kernel=13).apply(x, still(sigma=torch.tensor([2.0])))
    want = tensor(pillow(x).filter(ImageFilter.GaussianBlur(2.0)))  # three box filters
    assert (view - want).abs()[..., 8:-8, 8:-8].max() < 0.02


def test_only_images_drawn_are_blurred_each_by_its_own_sigma() -> None:
    x = photos().repeat(4, 1, 1, 1)
    view = Augment().apply(x, still(4, sigma=torch.tensor([0.0, 0.5, 0.0, 2.0])))
    assert torch.equal(view[0], view[2])
    torch.testing.assert_close(view[0], x[0] / 255, rtol=0, atol=1e-5)
    spread = [one.std().item() for one in view]
    assert spread[0] > spread[1] > spread[3]
    assert gaussian(torch.tensor([0.0, 3.0]), 9).sum(1).tolist() == pytest.approx([1, 1])
    with pytest.raises(DataError, match="4 by 9 pixels are too small for a blur with a kernel of 9"):
        Augment(blur=1.0)(torch.zeros(1, 1, 4, 9), seeded())


def test_solarised_images_are_those_of_pillow() -> None:
    x = photos(2, low=0, high=256)
    view = Augment().apply(x, still(2, inverted=torch.tensor([True, False])))
    assert (view[:1] - tensor(ImageOps.solarize(pillow(x), 128))).abs().max() < 1e-4
    torch.testing.assert_close(view[1], x[1] / 255, rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_part_of_the_images_has_that_part_of_the_views(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit: alone, in parts, in chunks of one, and in any memory layout."""
    x = photos(23, 28, 0, 256)[:, :channels]
    draws = EVERYTHING.draw(23, seeded())
    whole = EVERYTHING.apply(x, draws)
    parts = [EVERYTHING.apply(x[a:b], draws[a:b]) for a, b in ((0, 1), (1, 9), (9, 23))]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(EVERYTHING(x, seeded()), whole)
    assert torch.equal(EVERYTHING.apply(x.to(memory_format=torch.channels_last), draws), whole)
    monkeypatch.setattr("metarep.data.augment.sampling.CHUNK", 1)
    assert torch.equal(EVERYTHING.apply(x, draws), whole)
    assert EVERYTHING(x[:0], seeded()).shape == (0, channels, 28, 28)


def test_bytes_and_floats_of_any_width_give_one_view() -> None:
    x = photos(6, 28, 0, 256)
    quiet = replace(EVERYTHING, solarise=0.0)  # a value at the threshold may fall on either side
    view = quiet(x, seeded())
    torch.testing.assert_close(quiet(x.float() / 255, seeded()), view, rtol=0, atol=1e-5)
    double = quiet(x.double() / 255, seeded())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), view, rtol=0, atol=1e-5)
    half = quiet(x, seeded(), torch.bfloat16)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), view, rtol=0, atol=1 / 128)
    assert view.min() >= 0
    assert view.max() <= 1
    white = torch.full((64, 1, 28, 28), 255, dtype=torch.uint8)
    assert Augment(rotate=20, crop=(0.3, 1.0))(white, seeded()).max() <= 1, "rounding must not lead beyond white"
    plain = Augment(rotate=20, cutout=0.3)
    torch.testing.assert_close(plain(x, seeded(), torch.bfloat16).float(), plain(x, seeded()), rtol=0, atol=1 / 128)


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "none"])
def test_one_image_gives_distinct_views_by_the_generator_alone(name: str) -> None:
    augment = PRESETS[name]
    assert augment is not None
    x = photos(1, 28, 0, 256).repeat(64, 1, 1, 1)
    views = augment(x, seeded())
    assert len({view.numpy().tobytes() for view in views}) == 64
    torch.manual_seed(1)
    assert torch.equal(augment(x, seeded()), views)
    assert not torch.equal(augment(x, seeded(1)), views)


def test_parameters_follow_the_settings_and_are_independent() -> None:
    n = 4_000
    draws = Augment(brightness=0.4, contrast=1.5, saturation=0.2, hue=0.1, jitter=0.8, grey=0.2, blur=0.5).draw(
        n, seeded()
    )
    assert draws.colour is not None
    assert draws.sigma is not None
    colour, changed = draws.colour, draws.colour[:, 0] != 1
    assert changed.float().mean().item() == pytest.approx(0.8, abs=0.03)
    assert (colour[~changed][:, [1, 3]] == torch.tensor([1.0, 0.0])).all(), "all four or none"
    spans = ((0.6, 1.4), (0.0, 2.5), (0.8, 1.2), (-0.2 * math.pi, 0.2 * math.pi))
    grey = colour[:, 2] == 0
    assert grey.float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert grey[changed].float().mean().item() == pytest.approx(grey[~changed].float().mean().item(), abs=0.05)
    kept = colour[changed & ~grey]
    for values, (low, high) in zip(kept.T, spans, strict=True):
        counts = torch.histc((values - low) / (high - low), 10, 0, 1)
        assert counts.sum() == len(kept), "all within their span"
        assert (counts - len(kept) / 10).abs().max() < 4 * math.sqrt(len(kept) / 10)
    blurred = draws.sigma[draws.sigma > 0]
    assert len(blurred) / n == pytest.approx(0.5, abs=0.04)
    assert 0.1 <= blurred.min() < 0.11
    assert 1.98 < blurred.max() <= 2
    table = torch.cat([kept, draws.sigma[changed & ~grey].unsqueeze(1)], dim=1)
    assert np.abs(np.corrcoef(table.T.numpy()) - np.eye(5)).max() < 0.08


def test_the_draws_of_trained_recipes_have_not_changed() -> None:
    """What came out before the engine grew; a trained run that is reproduced or resumed depends on it."""
    for name, want in (("drawings", DRAWINGS), ("photos", PHOTOS)):
        augment, generator = PRESETS[name], seeded(3)
        assert augment is not None
        matrix = augment.matrices(2, generator)
        torch.testing.assert_close(matrix.flatten(), torch.tensor(want), rtol=0, atol=1e-6)
        assert torch.rand(1, generator=generator).item() == pytest.approx(NEXT[name], abs=1e-7)


DRAWINGS = [
    1.0916556,
    0.2148755,
    0.0302148,
    -0.1236134,
    1.0724275,
    -0.01567,
    1.2338793,
    0.014565,
    0.1241141,
    -0.0991097,
    1.2479762,
    0.095837,
]
PHOTOS = [0.6156802, 0.0, -0.2493427, 0.0, 0.7957127, 0.1419056, -0.7912558, 0.0, 0.1875286, -0.0, 0.8099546, 0.1424794]
NEXT = {"drawings": 0.6483104228973389, "photos": 0.94930499792099}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flip": 1.5}, "flip must be from 0 to 1, not 1.5"),
        ({"hue": 0.7}, "hue must be at most 0.5"),
        ({"brightness": -0.1}, "brightness must be at least 0, not -0.1"),
        ({"crop": (0.2, 1.2)}, r"crop must be shares of the area, at most 1, not \(0.2, 1.2\)"),
        ({"scale": (1.2, 0.8)}, r"scale must be a smallest and a largest value above 0, not \(1.2, 0.8\)"),
        ({"kernel": 8}, "kernel must be an odd number of pixels, not 8"),
        ({"rotate": float("nan")}, "rotate must be at least 0, not nan"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(MetarepError, match=message):
        Augment(**settings)
