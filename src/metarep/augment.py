"""Batched augmentation on the device of the images: one draw an image, one pass over the pixels.

Library transforms on a batched tensor draw once for the whole batch; here every image has its own draw. Parameters come
from a CPU generator, so one seed names the same views on every device.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Num
from torch import Generator, Tensor
from torch.nn import functional

from metarep.errors import unknown


@dataclass(frozen=True)
class Augment:
    """A random affine map, horizontal flip and cut-out for every image.

    Args:
        rotate: largest rotation in degrees, either way.
        scale: smallest and largest factor by which the content grows.
        shear: largest shear in degrees, either axis, either way.
        shift: largest shift, as a share of the side, either axis, either way.
        crop: smallest and largest share of the area for a random crop resized to the whole image; None for no crop.
        ratio: smallest and largest aspect ratio of the crop.
        flip: probability of a horizontal flip.
        cutout: side of a square that is set to the image's mean, as a share of the side; 0 for none.
    """

    rotate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    shift: float = 0.0
    crop: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.0
    cutout: float = 0.0

    def __call__(self, x: Num[Tensor, "b c h w"], generator: Generator) -> Float[Tensor, "b c h w"]:
        """Views of ``x`` as float in 0 to 1, each with its own draw. Pixels from beyond an edge repeat the edge."""
        x = x.float() / 255 if x.dtype == torch.uint8 else x
        matrix = self.matrices(len(x), generator, aspect=x.shape[-1] / x.shape[-2]).to(x)
        grid = functional.affine_grid(matrix, list(x.shape), align_corners=False)
        view = functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return self._cut(view, generator) if self.cutout else view

    def matrices(self, n: int, generator: Generator, aspect: float = 1.0) -> Float[Tensor, "n 2 3"]:
        """For each image the map from places in the view to places in the image, in units of -1 to 1.

        Args:
            n: images.
            generator: for their draws.
            aspect: width over height; turning and slanting are done in pixels, not in these units.
        """
        draw = torch.rand(10, n, generator=generator)

        def between(i: int, low: float, high: float) -> Tensor:
            return low + (high - low) * draw[i]

        turn = torch.deg2rad(between(0, -self.rotate, self.rotate))
        grow = between(1, *self.scale)
        slant_x = torch.deg2rad(between(2, -self.shear, self.shear)).tan()
        slant_y = torch.deg2rad(between(3, -self.shear, self.shear)).tan()
        linear = torch.stack(
            [turn.cos(), -turn.sin(), turn.sin(), turn.cos()],
            dim=-1,
        ).view(n, 2, 2)
        slant = torch.stack([torch.ones(n), slant_x, slant_y, torch.ones(n)], dim=-1).view(n, 2, 2)
        linear = linear @ slant / grow.view(n, 1, 1) * torch.tensor([[1.0, 1 / aspect], [aspect, 1.0]])
        offset = torch.stack([between(4, -self.shift, self.shift), between(5, -self.shift, self.shift)], dim=-1) * 2
        if self.crop is not None:
            form = between(7, math.log(self.ratio[0]), math.log(self.ratio[1])).exp()
            area = between(6, *self.crop)
            sides = torch.stack([(area * form).sqrt(), (area / form).sqrt()], dim=-1).clamp_max(1)
            offset = offset + (1 - sides) * (draw[8:10].T * 2 - 1)
            linear = linear * sides.unsqueeze(1)
        if self.flip:
            mirrored = torch.rand(n, generator=generator) < self.flip
            sign = torch.stack([1 - 2 * mirrored.float(), torch.ones(n)], dim=-1)
            linear = linear * sign.unsqueeze(1)
        return torch.cat([linear, offset.unsqueeze(-1)], dim=-1)

    def _cut(self, x: Tensor, generator: Generator) -> Tensor:
        n, _, height, width = x.shape
        centre = torch.rand(n, 2, generator=generator).to(x)
        rows = (torch.arange(height, device=x.device) + 0.5) / height
        columns = (torch.arange(width, device=x.device) + 0.5) / width
        tall = (rows - centre[:, :1]).abs() < self.cutout / 2
        wide = (columns - centre[:, 1:]).abs() < self.cutout / 2
        hole = (tall.unsqueeze(2) & wide.unsqueeze(1)).unsqueeze(1)
        return torch.where(hole, x.mean((2, 3), keepdim=True), x)


# Drawings turn and slant as a hand does but are never mirrored: a mirrored letter is another letter.
PRESETS = {
    "none": None,
    "drawings": Augment(rotate=12, scale=(0.8, 1.2), shear=10, shift=0.08),
    "photos": Augment(crop=(0.4, 1.0), flip=0.5),
}


def preset(name: str) -> Augment | None:
    """A named augmentation, or None for ``none``."""
    if name not in PRESETS:
        raise unknown("augmentation", name, PRESETS)
    return PRESETS[name]
