"""The same settings of an ``Augment`` by three other ways, for benchmarks/augment.py: one function a way.

Each returns a function from uint8 images ``(n, c, h, w)`` to float views in 0 to 1. Draws of the two loops come from
Python's ``random``, which costs them less than a torch call each. Pillow's HSV is a byte a channel.
"""

import math
import random
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor
from torch.nn import functional

from metarep.data.augment import Augment

Views = Callable[[Tensor], Tensor]


def by_pillow(augment: Augment) -> Views:
    """One image after the other, as the transforms of most few-shot code do it."""

    def one(pixels: np.ndarray) -> Tensor:
        image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
        width, height = image.size
        if moves(augment):
            a, b, c, d, e, f = affine(augment, width, height)
            image = image.transform(image.size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)
        if augment.crop:
            top, left, h, w = window(augment, height, width)
            image = image.resize((width, height), Image.Resampling.BILINEAR, box=(left, top, left + w, top + h))
        if random.random() < augment.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if augment.recolours and random.random() < augment.jitter:
            for name in random.sample(("brightness", "contrast", "saturation", "hue"), 4):
                image = pillow_colour(image, name, getattr(augment, name))
        if augment.grey and random.random() < augment.grey:
            image = image.convert("L").convert("RGB")
        if augment.blur and random.random() < augment.blur:
            image = image.filter(ImageFilter.GaussianBlur(random.uniform(*augment.sigma)))
        array = torch.from_numpy(np.array(image))
        return (array.unsqueeze(0) if array.ndim == 2 else array.permute(2, 0, 1).contiguous()).float().div_(255)

    return lambda x: torch.stack([one(pixels) for pixels in x.numpy()])


def pillow_colour(image: Image.Image, name: str, reach: float) -> Image.Image:
    factor = random.uniform(max(0, 1 - reach), 1 + reach)
    if name == "brightness":
        return ImageEnhance.Brightness(image).enhance(factor)
    if name == "contrast":
        return ImageEnhance.Contrast(image).enhance(factor)
    if name == "saturation":
        return ImageEnhance.Color(image).enhance(factor)
    hue, saturation, value = image.convert("HSV").split()
    turned = np.array(hue) + np.uint8(int(random.uniform(-reach, reach) * 255) % 256)
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")


def by_tensors(augment: Augment) -> Views:
    """One tensor after the other, each transform a few operations on it, as torchvision's functions on tensors are."""

    def one(x: Tensor) -> Tensor:
        x = x.float().div_(255)
        height, width = x.shape[1:]
        if moves(augment):
            a, b, c, d, e, f = affine(augment, width, height)
            linear = [[a, b * height / width], [d * width / height, e]]
            shift = [(2 * c + a * width + b * height) / width - 1, (2 * f + d * width + e * height) / height - 1]
            matrix = torch.tensor([[[*linear[0], shift[0]], [*linear[1], shift[1]]]])
            grid = functional.affine_grid(matrix, [1, *x.shape], align_corners=False)
            x = functional.grid_sample(x.unsqueeze(0), grid, padding_mode="border", align_corners=False)[0]
        if augment.crop:
            top, left, h, w = window(augment, height, width)
            part = x[None, :, top : top + h, left : left + w]
            x = functional.interpolate(part, (height, width), mode="bilinear", antialias=True)[0]
        if random.random() < augment.flip:
            x = x.flip(-1)
        if augment.recolours and random.random() < augment.jitter:
            for name in random.sample(("brightness", "contrast", "saturation", "hue"), 4):
                x = tensor_colour(x, name, getattr(augment, name))
        if augment.grey and random.random() < augment.grey:
            x = luma(x).expand(3, -1, -1)
        if augment.blur and random.random() < augment.blur:
            reach = augment.kernel // 2
            line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / random.uniform(*augment.sigma)) ** 2)
            line = line / line.sum()
            square = torch.outer(line, line).expand(len(x), 1, -1, -1)
            x = functional.conv2d(functional.pad(x, [reach] * 4, mode="reflect"), square, groups=len(x))
        return x

    return lambda x: torch.stack([one(image) for image in x])


def luma(x: Tensor) -> Tensor:
    return (0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2]).unsqueeze(0)


def tensor_colour(x: Tensor, name: str, reach: float) -> Tensor:
    factor = random.uniform(max(0, 1 - reach), 1 + reach)
    if name == "brightness":
        return (x * factor).clamp_(0, 1)
    if name in ("contrast", "saturation"):
        grey = luma(x).mean() if name == "contrast" else luma(x)
        return (factor * x + (1 - factor) * grey).clamp_(0, 1)
    high, which = x.max(0)
    low = x.min(0).values
    spread = high - low
    r, g, b = x
    safe = torch.where(spread == 0, 1, spread)
    turns = torch.stack([(g - b) / safe, (b - r) / safe + 2, (r - g) / safe + 4]).gather(0, which.unsqueeze(0))[0]
    hue = (turns / 6 + random.uniform(-reach, reach)) % 1
    places = (torch.tensor([5.0, 3.0, 1.0]).view(3, 1, 1) + hue * 6) % 6
    return high - spread * torch.minimum(places, 4 - places).clamp_(0, 1)


def by_kornia(augment: Augment) -> Views:
    """One call on the batch. Raises ImportError where kornia is not installed."""
    import kornia.augmentation as kornia

    def views(x: Tensor) -> Tensor:
        side = tuple(x.shape[2:])
        if side not in made:
            parts = []
            if moves(augment):
                slant = (-augment.shear, augment.shear) * 2
                parts.append(
                    kornia.RandomAffine(
                        augment.rotate, (augment.shift,) * 2, augment.scale, slant, p=1.0, padding_mode="border"
                    )
                )
            if augment.crop:
                parts.append(kornia.RandomResizedCrop(side, augment.crop, augment.ratio, p=1.0))
            if augment.flip:
                parts.append(kornia.RandomHorizontalFlip(p=augment.flip))
            if augment.recolours:
                reach = (augment.brightness, augment.contrast, augment.saturation, augment.hue)
                parts.append(kornia.ColorJitter(*reach, p=augment.jitter))
            if augment.grey:
                parts.append(kornia.RandomGrayscale(p=augment.grey))
            if augment.blur:
                parts.append(kornia.RandomGaussianBlur((augment.kernel,) * 2, augment.sigma, p=augment.blur))
            made[side] = torch.nn.Sequential(*parts)
        return made[side](x.float().div_(255))

    made: dict[tuple[int, ...], torch.nn.Module] = {}
    return views


def moves(augment: Augment) -> bool:
    return bool(augment.rotate or augment.shear or augment.shift or augment.scale != (1.0, 1.0))


def affine(augment: Augment, width: int, height: int) -> tuple[float, ...]:
    """A random map from pixels of the view to pixels of the image: (a, b, c, d, e, f), as Pillow wants it."""
    turn = math.radians(random.uniform(-augment.rotate, augment.rotate))
    grow = random.uniform(*augment.scale)
    slant_x, slant_y = (math.tan(math.radians(random.uniform(-augment.shear, augment.shear))) for _ in range(2))
    cos, sin = math.cos(turn) / grow, math.sin(turn) / grow
    a, b, d, e = cos - sin * slant_y, cos * slant_x - sin, sin + cos * slant_y, sin * slant_x + cos
    right, down = (random.uniform(-augment.shift, augment.shift) * side for side in (width, height))
    x, y = width / 2, height / 2
    return a, b, x - a * x - b * y + right, d, e, y - d * x - e * y + down


def window(augment: Augment, height: int, width: int) -> tuple[int, int, int, int]:
    """A random crop: top, left, height, width; the whole image after ten failures, as usual."""
    low, high = (math.log(r) for r in augment.ratio)
    for _ in range(10):
        area = random.uniform(*augment.crop or (1, 1)) * height * width
        form = math.exp(random.uniform(low, high))
        w, h = round(math.sqrt(area * form)), round(math.sqrt(area / form))
        if 0 < w <= width and 0 < h <= height:
            return random.randint(0, height - h), random.randint(0, width - w), h, w
    return 0, 0, height, width
