"""Against kornia, where it is installed (pip install 'metarep[rivals]'): the same numbers, the same pictures."""

import warnings

import pytest
import torch
from torch import Generator

from metarep.data.augment import Augment, Draws

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of kornia, about torch
    kornia = pytest.importorskip("kornia")

X = torch.rand(3, 3, 20, 26, generator=Generator().manual_seed(0))
STILL = torch.eye(2, 3).repeat(3, 1, 1)


def test_blur() -> None:
    sigma = torch.tensor([0.4, 1.0, 2.0])
    want = kornia.filters.gaussian_blur2d(X, (9, 9), sigma.unsqueeze(1).repeat(1, 2), border_type="reflect")
    torch.testing.assert_close(Augment().apply(X, Draws(STILL, sigma=sigma)), want, rtol=0, atol=1e-5)


def test_solarisation() -> None:
    want = kornia.enhance.solarize(X, thresholds=0.5)
    view = Augment().apply(X, Draws(STILL, inverted=torch.ones(3, dtype=torch.bool)))
    torch.testing.assert_close(view, want, rtol=0, atol=1e-5)


def test_contrast_and_greyscale() -> None:
    colour = torch.tensor([[1.0, 0.7, 1.0, 0.0]]).repeat(3, 1)
    want = kornia.enhance.adjust_contrast_with_mean_subtraction(X, 0.7)
    torch.testing.assert_close(Augment().apply(X, Draws(STILL, colour=colour)), want, rtol=0, atol=1e-5)
    colour = torch.tensor([[1.0, 1.0, 0.0, 0.0]]).repeat(3, 1)
    want = kornia.color.rgb_to_grayscale(X).expand_as(X)
    torch.testing.assert_close(Augment().apply(X, Draws(STILL, colour=colour)), want, rtol=0, atol=1e-5)


def test_rotation_and_shear() -> None:
    """Where the view shows what lies inside the image: beyond an edge the two repeat it in ways of their own."""
    draws = Augment(rotate=20, shear=10, scale=(1.4, 1.5)).draw(3, Generator().manual_seed(1), aspect=26 / 20)
    unit = torch.tensor([[13.0, 0.0, 12.5], [0.0, 10.0, 9.5], [0.0, 0.0, 1.0]])  # from -1 to 1 to centres of pixels
    last = torch.tensor([[0.0, 0.0, 1.0]]).expand(3, 1, 3)
    to_image = unit @ torch.cat([draws.matrix, last], dim=1) @ unit.inverse()
    to_view = to_image.inverse()[:, :2]
    want = kornia.geometry.transform.warp_affine(X, to_view, (20, 26), padding_mode="border", align_corners=True)
    torch.testing.assert_close(Augment().apply(X, draws), want, rtol=0, atol=1e-4)
