"""Preprocess: how raw images are prepared for an encoder. It is saved with the weights, so no caller can mistake it."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.nn import functional

from metarep.data.images import ImageBank
from metarep.errors import MetarepError

LARGEST = 4096  # side of an image in pixels that a file may ask for; larger images would fill the memory
AT_ONCE = 100_000_000  # values whose mean and deviation are measured at once, 400 MB; 4,000 images of 84 px are fewer
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma, as in Pillow's convert("L")


@dataclass(frozen=True)
class Preprocess:
    """Resizes, converts and normalises raw images for the first layer of an encoder.

    Raw images are uint8 in 0 to 255, or floating point in 0 to 1.

    Args:
        size: height and width in pixels. Images of another size are resized (bilinear, antialiased).
        channels: 1 (grey) or 3 (RGB). A grey image is repeated for RGB; an RGB image becomes its luma for grey.
        mean, std: mean and standard deviation of the training images, one value a channel, for pixels in 0 to 1.
        invert: turn dark ink on a light background into light on dark, so that the zero padding of a convolution is
            background.

    Raises:
        MetarepError: the size is below 1 pixel, ``channels`` is not 1 or 3, or a channel lacks a finite mean or a
            standard deviation above 0.

    >>> grey = Preprocess((1, 2), 1, (0.5,), (0.25,))
    >>> grey(torch.tensor([[[[0, 255]]]], dtype=torch.uint8)).round(decimals=4).tolist()
    [[[[-2.0, 2.0]]]]
    """

    size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    invert: bool = False

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise MetarepError(f"channels must be 1 (grey) or 3 (RGB), not {self.channels!r}")
        if len(self.size) != 2 or not all(isinstance(side, int) and side >= 1 for side in self.size):
            raise MetarepError(f"size must be a height and a width of at least 1 pixel, not {self.size!r}")
        for name, least in (("mean", -math.inf), ("std", 0)):
            values = getattr(self, name)
            if len(values) != self.channels or not all(_is_number(each) and each > least for each in values):
                raise MetarepError(f"{name} must be a number for each of {self.channels} channels, not {values!r}")

    @classmethod
    def read(cls, saved: Mapping[str, Any]) -> "Preprocess":
        """The Preprocess that ``dataclasses.asdict`` gave, after a way through JSON, which has no tuples.

        Raises:
            MetarepError: as for the class; or a side has more than 4,096 pixels.
            KeyError, TypeError: the values are not those of a Preprocess.
        """
        read = cls(**{**saved, **{name: tuple(saved[name]) for name in ("size", "mean", "std")}})
        if max(read.size) > LARGEST:
            raise MetarepError(f"its images have {' x '.join(map(str, read.size))} px; at most {LARGEST} are allowed")
        return read

    @classmethod
    def of(cls, bank: ImageBank) -> "Preprocess":
        """The preprocessing that suits these (training) images.

        Single-channel images with a light border are treated as drawings: they are inverted, and neither shifted nor
        scaled, so that the background is exactly zero. All others are standardised by their mean and standard
        deviation, which are measured on about 2,000 of them.
        """
        rows = bank.held(torch.arange(0, len(bank), max(1, len(bank) // 2000)))
        bank.fetch(rows)
        at_once = max(1, AT_ONCE // (bank.channels * bank.size[0] * bank.size[1]))
        measured = []
        for some in rows.split(at_once) if len(rows) else ():
            part = bank.pixels(some).float().div_(255)
            edges = [part[..., 0, :], part[..., -1, :], part[..., 0], part[..., -1]]
            border, count = torch.cat(edges, dim=-1).mean(), part.new_tensor(len(part))
            measured.append(torch.stack([count, border, *part.mean((0, 2, 3)), *part.std((0, 2, 3))]))
        table = bank.gathered(torch.stack(measured) if measured else torch.empty(0, 2 + 2 * bank.channels))
        counts, borders = table[:, 0], table[:, 1]
        means, stds = table[:, 2:].split(bank.channels, dim=1)
        share = counts / counts.sum()
        if bank.channels == 1 and (borders * share).sum() > 0.75:
            return cls(bank.size, 1, (0.0,), (1.0,), invert=True)
        mean, std = means[0], stds[0]
        if len(counts) > 1:  # the mean of the variances, and the variance of the means
            mean = (means * share.unsqueeze(1)).sum(0)
            spread = stds.square() + (means - mean).square()
            std = (spread * share.unsqueeze(1)).sum(0).sqrt()
        return cls(bank.size, bank.channels, tuple(mean.tolist()), tuple(std.clamp_min(1e-3).tolist()))

    def __call__(self, x: Num[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        """Images of this size and number of channels, normalised, in float32 (float64 for images in float64)."""
        unit = 255.0 if x.dtype == torch.uint8 else 1.0
        x = x.float() if x.dtype != torch.float64 else x
        if x.shape[-2:] != self.size:
            x = functional.interpolate(x, self.size, mode="bilinear", antialias=True)
        if x.shape[1] != self.channels:
            x = self._convert(x)
        # Copying a number to a GPU is a host synchronisation, so the two tensors are kept there.
        shift, scale = (_kept if x.is_cuda else _shift_and_scale)(self, unit, x.dtype, x.device)
        return torch.addcmul(shift, x, scale)

    def _convert(self, x: Tensor) -> Tensor:
        if x.shape[1] == 1:
            return x.expand(-1, self.channels, -1, -1)
        if x.shape[1] == 3 and self.channels == 1:
            return (x * x.new_tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)
        raise MetarepError(f"images have {x.shape[1]} channels; this encoder takes 1 (grey) or 3 (RGB)")


def _shift_and_scale(
    wanted: Preprocess, unit: float, dtype: torch.dtype, device: torch.device
) -> tuple[Float[Tensor, "c 1 1"], Float[Tensor, "c 1 1"]]:
    """The shift and the scale of the normalisation ``shift + scale * image``, for images in 0 to ``unit``."""
    mean, std = (torch.tensor(each, dtype=dtype, device=device).view(-1, 1, 1) for each in (wanted.mean, wanted.std))
    scale = -1 / (unit * std) if wanted.invert else 1 / (unit * std)
    return (1 - mean) / std if wanted.invert else -mean / std, scale


@functools.lru_cache(maxsize=64)
def _kept(*arguments: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """The result of :func:`_shift_and_scale`, kept in a cache."""
    with torch.inference_mode(False):
        return _shift_and_scale(*arguments)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
