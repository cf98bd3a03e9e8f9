"""Colour: each transform what Pillow, or the standard library, makes of the same numbers."""

import colorsys
import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ImageEnhance
from views import photos, pillow, seeded, still, tensor

from metarep.data.augment import Augment, Draws
from metarep.errors import DataError


def coloured(brightness: float = 1, contrast: float = 1, saturation: float = 1, hue: float = 0) -> Draws:
    return still(colour=torch.tensor([[brightness, contrast, saturation, hue * 2 * math.pi]]))


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.4])
@pytest.mark.parametrize(
    ("name", "enhance"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
def test_factors_are_those_of_pillow(name: str, enhance: Any, factor: float) -> None:
    x = photos()
    view = Augment().apply(x, coloured(**{name: factor}))
    want = tensor(enhance(pillow(x)).enhance(factor))
    assert (view - want).abs().max() < 2 / 255  # Pillow rounds to bytes, the mean too


def test_the_clamp_at_the_end_is_that_of_pillow() -> None:
    x = photos(low=0, high=256)
    view = Augment().apply(x, coloured(brightness=1.4))
    assert (view == 1).float().mean() > 0.2
    assert (view - tensor(ImageEnhance.Brightness(pillow(x)).enhance(1.4))).abs().max() < 2 / 255


@pytest.mark.parametrize("turn", [-0.1, 0.05, 0.25, 0.5])
def test_hue_turns_the_axes_of_yiq(turn: float) -> None:
    """Against the standard library, pixel by pixel; its axes have two digits, hence the tolerance."""
    x = photos(side=6)
    view = Augment().apply(x, coloured(hue=turn))
    cos, sin = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    for before, after in zip((x / 255)[0].flatten(1).T.tolist(), view[0].flatten(1).T.tolist(), strict=True):
        y, i, q = colorsys.rgb_to_yiq(*before)
        want = colorsys.yiq_to_rgb(y, i * cos + q * sin, q * cos - i * sin)
        assert after == pytest.approx(want, abs=0.02)


def test_hue_turns_the_way_of_hsv_and_about_as_far() -> None:
    """On average in the direction of HSV and as far, so that the usual strengths keep their meaning."""
    x = photos(side=40)
    view = Augment().apply(x, coloured(hue=0.1))
    turns = []
    for before, after in zip((x / 255)[0].flatten(1).T.tolist(), view[0].flatten(1).T.tolist(), strict=True):
        turn = colorsys.rgb_to_hsv(*after)[0] - colorsys.rgb_to_hsv(*before)[0]
        turns.append((turn + 0.5) % 1 - 0.5)
    assert np.mean(turns) == pytest.approx(0.1, abs=0.02)
    assert np.mean(np.array(turns) > 0) > 0.99


def test_luma_is_kept_by_hue_and_saturation_and_grey_by_both() -> None:
    x, luma = photos(), torch.tensor([0.299, 0.587, 0.114])
    view = Augment().apply(x, coloured(saturation=1.3, hue=0.08))
    torch.testing.assert_close(luma @ view[0].flatten(1), luma @ (x / 255)[0].flatten(1), rtol=0, atol=1e-6)
    grey = x[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(Augment().apply(grey, coloured(saturation=1.4, hue=0.3)), grey / 255, rtol=0, atol=1e-6)
    flat = Augment().apply(x, coloured(saturation=0.0, hue=0.1))
    assert (flat - tensor(pillow(x).convert("L").convert("RGB"))).abs().max() < 1 / 255


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2), (2, 0, 3, 1)])
def test_any_order_of_the_four_is_the_one_map(order: tuple[int, ...]) -> None:
    """One transform after the other, each a view of the last, in whatever order: so there is no order to draw."""
    x, drawn = photos().double() / 255, torch.tensor([1.2, 0.7, 1.3, 0.5])
    whole = Augment().apply(x, still(colour=drawn.unsqueeze(0)))
    for place in order:
        colour = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
        colour[0, place] = drawn[place]
        x = Augment().apply(x, still(colour=colour))
    torch.testing.assert_close(x, whole, rtol=0, atol=1e-6)


def test_images_of_one_channel_have_brightness_and_contrast() -> None:
    x = photos()[:, :1]
    view = Augment().apply(x, coloured(1.2, 0.7, 0.3, 0.2))
    unit = x / 255
    torch.testing.assert_close(view, 1.2 * (0.7 * unit + 0.3 * unit.mean()), rtol=0, atol=1e-5)
    with pytest.raises(DataError, match="4 channels cannot be changed"):
        Augment(brightness=0.2)(torch.zeros(2, 4, 8, 8), seeded())
