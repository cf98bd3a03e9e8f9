"""Colour jitter, greyscale and solarisation: one affine map of colours and one clamp for each image.

Colours are split as in analogue television (YIQ): into luma, and two coordinates of chroma. Saturation scales the
chroma, a change of hue rotates it, and greyscale is saturation 0. Brightness scales all three coordinates, and contrast
moves them towards the mean luma of the image. All of these maps are affine, so their product is one 3x3 matrix and one
shift.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarep.errors import DataError

# Rows: luma (ITU-R BT.601, as in Pillow's convert("L")), then the two chroma axes of NTSC, which are 0 for a grey.
YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def colour_map(
    colour: Float[Tensor, "n 4"], channels: int
) -> tuple[Float[Tensor, "n channels channels"], Float[Tensor, "n channels"]]:
    """Compute the affine colour map of each image, for :func:`recolour`.

    Libraries apply brightness, contrast, saturation and hue in a random order and clamp after each. Without those
    clamps the order does not matter. Saturation and hue keep luma and commute with each other. Brightness scales
    everything, the mean included. Contrast shifts luma by a constant and scales the rest. So there is one order here,
    and one clamp at the end.

    Args:
        colour: factors of brightness, contrast and saturation, and the hue in radians, as in ``Draws``.
        channels: 1 or 3. For 1, saturation and hue have no effect.

    Returns:
        The matrix of each image, and for each of its output channels the weights of the channel means that are added.

    Raises:
        DataError: another number of channels.

    >>> matrix, shift = colour_map(torch.tensor([[0.5, 1.0, 1.0, 0.0]]), 1)  # half the brightness
    >>> matrix.item(), shift.item()
    (0.5, 0.0)
    """
    if channels not in (1, 3):
        raise DataError(
            f"colours of images with {channels} channels cannot be changed; give images with 1 (grey) or 3 (RGB), or "
            "set brightness, contrast, saturation, hue and grey to 0"
        )
    brightness, contrast, saturation, hue = colour.T
    gain = brightness * contrast
    if channels == 1:
        return gain.view(-1, 1, 1), (brightness - gain).view(-1, 1)
    split = torch.tensor(YIQ, dtype=torch.float64)
    # Rows of chroma must sum to exactly 0, so that a grey stays grey; the digits above are rounded.
    split[1:] -= split[1:].mean(1, keepdim=True)
    turned = torch.zeros(len(colour), 3, 3, dtype=torch.float64)
    turned[:, 0, 0] = 1
    turned[:, 1, 1] = turned[:, 2, 2] = saturation * hue.cos()
    turned[:, 1, 2] = saturation * hue.sin()  # in this direction red turns to yellow, as in HSV
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
    """Apply the affine colour map of each image and clamp to 0 to 1; the result is written to ``out``.

    Args:
        x: the images.
        mix, lift: the maps, from :func:`colour_map`.
        mean: the mean of each channel of each image.
        out: where to write; may be ``x``.
    """
    shift = (lift * mean).sum(1).view(-1, 1, 1).expand(-1, x.shape[1], 1)
    # One channel needs no matrix product. On some CPUs its rounding differs between one image and a batch.
    mixed = shift + mix * x.flatten(2) if x.shape[1] == 1 else torch.baddbmm(shift, mix, x.flatten(2))
    view = mixed.view(x.shape)
    if out.dtype == view.dtype:
        torch.clamp(view, 0, 1, out=out)  # one pass over the pixels
    else:
        out.copy_(view.clamp_(0, 1))


def solarise(x: Float[Tensor, "b c h w"], inverted: Bool[Tensor, " b"], threshold: float) -> None:
    """Invert values from ``threshold`` upwards, in place.

    Args:
        x: the images, 0 to 1.
        inverted: which images to change.
        threshold: the least value that is inverted.
    """
    bright = (x >= threshold) & inverted.to(x.device).view(-1, 1, 1, 1)
    torch.where(bright, 1 - x, x, out=x)
