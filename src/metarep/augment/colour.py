"""Colour jitter, greyscale and solarisation: one affine map of colours an image, one clamp.

Colours are split as television did (YIQ): a luma, and two numbers for what colour it is. Saturation is a factor on
those two, a turn of the hue rotates them, greyscale is saturation 0; brightness is a factor on all three, and contrast
draws them to the image's mean luma. All are affine, so their product is one 3x3 matrix and one shift.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarep.errors import DataError

# Rows: luma (ITU-R BT.601, as Pillow's convert("L")), then NTSC's two axes of colour, which are 0 for a grey.
YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def colour_map(
    colour: Float[Tensor, "n 4"], channels: int
) -> tuple[Float[Tensor, "n channels channels"], Float[Tensor, "n channels"]]:
    """The matrices, and the shares of the mean that are added to each channel; see :func:`recolour`.

    Libraries do brightness, contrast, saturation and hue in a random order and clamp after each. Without those clamps
    the order is nothing: saturation and hue leave luma alone and commute with each other, brightness scales everything,
    mean included, and contrast moves luma by a number and scales the rest. So here is one order and one clamp.

    Args:
        colour: brightness, contrast, saturation, and hue in radians, as in ``Draws``.
        channels: 1 or 3; for 1 saturation and hue do nothing.

    Raises:
        DataError: another number of channels.
    """
    if channels not in (1, 3):
        raise DataError(f"colours of images with {channels} channels cannot be changed: 1 (grey) or 3 (RGB) can")
    brightness, contrast, saturation, hue = colour.T
    gain = brightness * contrast
    if channels == 1:
        return gain.view(-1, 1, 1), (brightness - gain).view(-1, 1)
    split = torch.tensor(YIQ, dtype=torch.float64)
    split[1:] -= split[1:].mean(
        1, keepdim=True
    )  # the printed digits sum to zero but for rounding; a grey must stay one
    turned = torch.zeros(len(colour), 3, 3, dtype=torch.float64)
    turned[:, 0, 0] = 1
    turned[:, 1, 1] = turned[:, 2, 2] = saturation * hue.cos()
    turned[:, 1, 2] = saturation * hue.sin()  # this way round red turns to yellow, as in HSV
    turned[:, 2, 1] = -turned[:, 1, 2]
    mix = split.inverse() @ turned @ split * gain.view(-1, 1, 1)
    lift = (brightness - gain).unsqueeze(1) * split[0]
    return mix.to(colour.dtype), lift.to(colour.dtype)


def recolour(
    x: Float[Tensor, "b c h w"],
    mix: Float[Tensor, "b c c"],
    lift: Float[Tensor, "b c"],
    mean: Float[Tensor, "b c"],
    out: Float[Tensor, "b c h w"],
) -> None:
    """Write ``mix`` times the colours of ``x``, plus ``lift`` times its mean, clamped to 0 to 1."""
    shift = (lift * mean).sum(1).view(-1, 1, 1).expand(-1, x.shape[1], 1)
    # one channel needs no matrix product, whose rounding with some processors is another for a single image
    mixed = shift + mix * x.flatten(2) if x.shape[1] == 1 else torch.baddbmm(shift, mix, x.flatten(2))
    view = mixed.view(x.shape)
    if out.dtype == view.dtype:
        torch.clamp(view, 0, 1, out=out)  # in one pass
    else:
        out.copy_(view.clamp_(0, 1))


def solarise(x: Float[Tensor, "b c h w"], inverted: Bool[Tensor, " b"], threshold: float) -> None:
    """Invert values from ``threshold`` upwards, in place, in the images that are ``inverted``."""
    bright = (x >= threshold) & inverted.to(x.device).view(-1, 1, 1, 1)
    torch.where(bright, 1 - x, x, out=x)
